"""Checks of an attack as a page."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """A page of the checks of an attack - a row an eps and check, a column a run, flags in words and colour."""

    kind: ClassVar[str] = "page"
    metrics: ClassVar[tuple[str, ...]] = ("attack_check",)
