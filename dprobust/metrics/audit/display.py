"""Settings of the table of audits."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import fault


class Display(RunsDisplay):
    """A table of audits of private runs - epsilon bounded from below beside the accountant's, and what was found of
    noise and gradients."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("audit",)


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` for a run whose training is not private."""
    for run in runs:
        if not (run.training and run.training.private):
            raise fault(f"runs: {run.name} is not trained with clipping and noise here; audit DP-SGD runs only")
