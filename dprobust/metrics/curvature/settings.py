"""Settings of the metric `curvature`."""

from math import prod
from typing import Annotated

from annotated_types import MinLen

from dprobust.settings import Count, Facts, MetricSettings, Positive, Unique, fault

MINUTES = 10


class Metric(MetricSettings):
    """Curvature of the cross-entropy around single test images."""

    images: Count | None = 100
    """Measure on the first so many of the study's draw of test images; null means all of them."""
    eigenvalues: Count = 15
    """Record so many eigenvalues of the input Hessian, the largest ones."""
    h: Annotated[list[Positive], MinLen(1), Unique] = [0.1, 0.5, 1.5, 3.0]
    """l2 distances over which the change of the gradient is measured."""


def check(settings: Metric, facts: Facts) -> None:
    if facts.shape and settings.eigenvalues > (pixels := prod(facts.shape)):
        raise fault(f"eigenvalues: {settings.eigenvalues} asked for, an image has {pixels} values; set it to no more")
