"""Settings of the figure of the PGD steps that it takes to fool a network (Fig 4)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import ShownLoss, fault


class Display(RunsDisplay):
    """Share of the images that PGD has fooled within so many steps, a column of panels an eps."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("pgd_iterations",)
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True
    flags: ClassVar[bool] = True

    loss: ShownLoss = "ce"
    """What the attack follows; worst takes for each image the loss measured that fools it in the fewest steps."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the loss shown is not measured."""
    losses, where = measured["pgd_iterations"].losses, f"datasets.{settings.dataset}.metrics.pgd_iterations.losses"
    if settings.loss == "worst" and len(losses) < 2:
        raise fault(f"loss: worst needs two or more in {where} ({', '.join(losses)})")
    if settings.loss != "worst" and settings.loss not in losses:
        raise fault(f"loss: {settings.loss} is not among {where} ({', '.join(losses)})")
