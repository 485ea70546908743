"""Settings of the figures of distances to the decision boundary (Figs 5a, 5b, 6a, 6b)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import Positive, fault


class Display(RunsDisplay):
    """Histograms of the distance to the decision boundary, and its mean by several definitions."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("distances",)
    images: ClassVar[bool] = True
    privacy: ClassVar[bool] = True

    norm: Literal["linf", "l2"] = "linf"
    """Norm of the distances shown."""
    paper_means: list[Positive] = []
    """Mean distances that the paper states, one a run in the order of `runs`."""
    paper_change: Annotated[float, Gt(-1)] | None = None
    """Relative change of the mean from the first run to the second, as the paper states it, where the means themselves
    cannot be compared; null states none."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the paper's values do not go with the runs."""
    if settings.paper_change is not None and len(runs) < 2:
        raise fault(f"paper_change: needs two runs, the figure has {len(runs)}")
    if len(settings.paper_means) > len(runs):
        raise fault(f"paper_means: {len(settings.paper_means)} values, but the figure has {len(runs)} run(s)")
