"""Settings of the figures of accuracy against the size of an FGSM perturbation (Figs 2, 3a-c, 7)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Len

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import ShownLoss, Unique, fault


class Display(RunsDisplay):
    """Curves of accuracy under FGSM over its eps, a colour a run, a line style a loss."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True
    flags: ClassVar[bool] = True

    losses: Annotated[list[ShownLoss], Len(1, 4), Unique] = ["ce", "ce_stable", "worst"]
    """What the attack follows, in the order of the line styles (solid, dashed, dotted, dash-dotted); worst is the worst
    case over the losses measured, image by image."""
    paper_gap: list[Annotated[list[float], Len(2, 2)]] = []
    """Gaps between the first two runs that the paper states, as [eps, percentage points]; adds a panel."""
    relative: bool = False
    """Show accuracy divided by the same model's accuracy at eps 0."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the figure asks for what is not measured or not there."""
    fgsm = measured["fgsm"]
    for loss in settings.losses:
        if loss == "worst" and len(fgsm.losses) < 2:
            raise fault(f"losses: worst needs two losses or more in datasets.{settings.dataset}.metrics.fgsm.losses")
        if loss != "worst" and loss not in fgsm.losses:
            raise fault(f"losses: {loss} is not among datasets.{settings.dataset}.metrics.fgsm.losses")
    if settings.relative and 0 not in fgsm.eps:
        raise fault(f"relative: needs 0.0 in datasets.{settings.dataset}.metrics.fgsm.eps")
    if settings.paper_gap and len(runs) < 2:
        raise fault(f"paper_gap: needs two runs, the figure has {len(runs)}")
