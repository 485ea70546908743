"""Accuracy under PGD as a table (Table 1 of the paper)."""

from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import ShownLoss, Unique, fault


class Display(RunsDisplay):
    """A table of the accuracy under PGD: a row an eps and number of steps, columns for the runs and their differences
    to the first."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("pgd",)
    images: ClassVar[bool] = True
    flags: ClassVar[bool] = True

    losses: Annotated[list[ShownLoss], MinLen(1), Unique] = ["ce", "margin", "worst"]
    """Losses whose attack is shown, a column each; the paper's values stand beside the first. `worst` counts an image
    as right only if it withstands the attack along each of the losses measured."""
    paper: str | None = None
    """File in workflow/paper/ with the accuracies that the paper states, in percent: a row an eps/steps, a column a
    run, `RUN - RUN` for printed differences; null for none."""


def check(settings: Display, runs: list[Run], measured: dict[str, Any]) -> None:
    """Whether the losses are measured."""
    losses, where = measured["pgd"].losses, f"datasets.{settings.dataset}.metrics.pgd.losses"
    for loss in settings.losses:
        if loss == "worst" and len(losses) < 2:
            raise fault(f"losses: worst needs two or more in {where} ({', '.join(losses)})")
        if loss != "worst" and loss not in losses:
            raise fault(f"losses: {loss} is not among {where} ({', '.join(losses)})")
