"""Settings of the figures of accuracy under the ladder of attacks, the twins of Figs 2, 3 and 7."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.metrics.ladder.settings import RungName
from dprobust.runs import Run, RunsDisplay
from dprobust.settings import fault


class Display(RunsDisplay):
    """Curves of the accuracy that the whole ladder of attacks leaves over its eps, a colour a run, beside what is left
    when it ends early."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("ladder",)
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True
    flags: ClassVar[bool] = True

    early: RungName | Literal["none"] = "pgd"
    """Show dashed what this rung and those before it leave; of the default ladder up to pgd that is what the paper
    attacks with."""
    gap: bool = True
    """Show the gap between the first two runs in a lower panel."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the figure asks for what is not measured or not there."""
    rungs = measured["ladder"].rungs
    if settings.early not in ("none", *rungs):
        raise fault(f"early: {settings.early} is not among datasets.{settings.dataset}.metrics.ladder.rungs")
    if settings.gap and len(runs) < 2:
        raise fault("gap: needs two runs; set it to false")
