"""Settings of the figure of the PGD steps that it takes to fool a network (Fig 4)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import Loss, fault


class Display(RunsDisplay):
    """Share of the images that PGD has fooled within so many steps, a column of panels an eps."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("pgd_iterations",)
    privacy: ClassVar[bool] = True

    loss: Loss = "ce"
    """What the attack follows."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the loss shown is not measured."""
    if settings.loss not in measured["pgd_iterations"].losses:
        raise fault(f"loss: {settings.loss} is not among datasets.{settings.dataset}.metrics.pgd_iterations.losses")
