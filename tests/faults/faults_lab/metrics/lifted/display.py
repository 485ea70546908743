"""Settings of the table of accuracy against light."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """Accuracy on brightened images."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("lifted",)
