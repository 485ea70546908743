"""Settings of the figures of robustness against privacy."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import NonNegative, ShownLoss, fault


class Display(RunsDisplay):
    """Accuracy under FGSM against the privacy epsilon of the runs, a line a clipping bound or a learning rate."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True
    explains: ClassVar[int] = 2
    flags: ClassVar[bool] = True

    eps: NonNegative = 0.1
    """Size of the perturbation; the metric fgsm must measure it."""
    loss: ShownLoss = "worst"
    """What the attack follows; worst is the worst case over the losses measured, image by image."""
    by: Literal["clip", "lr"] = "clip"
    """What the runs of a line share."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where eps or loss is not measured, or no run is private."""
    fgsm, where = measured["fgsm"], f"datasets.{settings.dataset}.metrics.fgsm"
    if settings.eps not in fgsm.eps:
        raise fault(f"eps: {settings.eps:g} is not among {where}.eps")
    if settings.loss == "worst" and len(fgsm.losses) < 2:
        raise fault(f"loss: worst needs two losses or more in {where}.losses")
    if settings.loss not in ("worst", *fgsm.losses):
        raise fault(f"loss: {settings.loss} is not among {where}.losses")
    if not any(run.private and run.training for run in runs):
        raise fault("runs: none is trained with DP-SGD, so there is no epsilon to show; add runs with sigma and clip")
