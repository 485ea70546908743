"""Settings of the figures of the curvature of the loss around test images (Figs 5c, 6c)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import Positive, fault


class Display(RunsDisplay):
    """Eigenvalues of the input Hessian by rank, the largest one without confidence, finite differences."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("curvature",)
    images: ClassVar[bool] = True
    privacy: ClassVar[bool] = True

    paper_ratio: Positive | None = None
    """Largest eigenvalue of the second run divided by that of the first, as the paper states it; null marks none."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the paper's ratio has no second run."""
    if settings.paper_ratio is not None and len(runs) < 2:
        raise fault(f"paper_ratio: needs two runs, the figure has {len(runs)}")
