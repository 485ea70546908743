"""Accuracy on corrupted test sets as a table (Table 2 of the paper)."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """A table of the accuracy on corrupted test sets: a row a corruption, a column a run."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("corruptions",)
    images: ClassVar[bool] = True

    paper: str | None = None
    """File in workflow/paper/ with the accuracies that the paper states, in percent: a row a corruption, a column a
    run, `RUN - RUN` for printed differences; null for none."""
