"""Settings of the figure of certified and attacked accuracy."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """Bands between the accuracy that is certified and the one that an attack leaves, over eps, a colour a run."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("certificates",)
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True
    flags: ClassVar[bool] = True
