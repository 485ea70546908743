"""Settings of the figure of membership inference."""

from typing import Annotated, ClassVar

from annotated_types import Gt, Lt

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """ROC of membership inference by the loss on logarithmic axes, and what privacy leaves possible."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("membership",)
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True

    ceilings: bool = True
    """Draw, for private runs, the highest true positive rate that any attack can have."""
    from_fpr: Annotated[float, Gt(0), Lt(1)] = 0.001
    """The least false positive rate shown."""
