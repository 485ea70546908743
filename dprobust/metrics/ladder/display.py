"""Accuracy under the ladder of attacks as a table."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """A table of the accuracy that each attack of the ladder leaves: a row an eps and attack, columns for the runs and
    their differences to the first, with a mark where the order is the other way round than without attack."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("ladder",)
    images: ClassVar[bool] = True
    flags: ClassVar[bool] = True

    alone: bool = True
    """Show what each attack finds by itself, where that is measured."""
