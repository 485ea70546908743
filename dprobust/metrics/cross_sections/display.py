"""Settings of the figure of normal cross-sections of decision regions (Fig 1)."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """Decision regions around test images, a row a run, a column an image."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("cross_sections",)
    privacy: ClassVar[bool] = True
