"""A page: which images do two models lose in common?"""

from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import Pixels, ShownLoss, fault


class Display(RunsDisplay):
    """A page that compares models in pairs, image by image - how many images an attack takes from both, from one of
    them, from none, and whether that is chance (McNemar's test)."""

    kind: ClassVar[str] = "page"
    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    images: ClassVar[bool] = True

    eps: Pixels = 0.1
    """Radius of the attack; metric fgsm must measure it, and 0."""
    loss: ShownLoss = "worst"
    """Loss that the attack follows; `worst` takes an image as lost if the attack along any of the losses measured
    takes it."""


def check(settings: Display, runs: list[Run], measured: dict[str, Any]) -> None:
    """Whether there are two models, and the attack is measured."""
    where = f"datasets.{settings.dataset}.metrics.fgsm"
    if len(runs) < 2:
        raise fault(f"runs: {len(runs)} model; pairs need two or more")
    if settings.eps == 0:
        raise fault("eps: must be above 0")
    for eps in (0.0, settings.eps):
        if eps not in (grid := measured["fgsm"].eps):
            raise fault(f"eps: {eps:g} is not among {where}.eps ({', '.join(f'{value:g}' for value in grid)})")
    if settings.loss != "worst" and settings.loss not in (losses := measured["fgsm"].losses):
        raise fault(f"loss: {settings.loss} is not among {where}.losses ({', '.join(losses)})")
