"""Settings of the metric `audit`."""

from typing import Annotated

from annotated_types import Ge, MinLen

from dprobust.settings import Count, MetricSettings, Probability, Unique

MINUTES = 30
TRAINED = True


class Metric(MetricSettings):
    """Audit of the private training of a run - its sampler, clipping, noise and update, trained on canaries instead of
    images."""

    images: Count | None = 1
    """Not in use; canaries stand in for images."""
    canaries: Annotated[int, Ge(20)] = 1000
    """Canaries to train at least; a few more where the sampling rate asks for it."""
    deltas: Annotated[list[Probability], MinLen(1), Unique] = [1e-6, 1e-5]
    """Where epsilon is bounded from below; each bound holds at 95 % by itself."""
