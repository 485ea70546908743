"""Settings of the figure of accuracy against the angle."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """Curves of accuracy over the angle by which images are rotated, a colour a run."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("rotation",)
    images: ClassVar[bool] = True
    privacy: ClassVar[bool] = True

    paper: str | None = None
    """File in paper/ with accuracies (0 to 1) to compare with, columns angle and accuracy; null for none."""
    reference: str = "reference"
    """What the values of that file are, for the legend."""
