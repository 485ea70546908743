"""Accuracy under FGSM at one eps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.quantity import Model, QuantitySettings, check_attack, compared, right
from dprobust.settings import Pixels, ShownLoss
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Accuracy under FGSM, in percent."""

    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    unit: ClassVar[str] = "points"

    eps: Pixels
    """Size of the perturbation; it must be measured."""
    loss: ShownLoss = "ce"
    """What the attack follows; worst is the worst case over the losses measured, image by image."""
    of: Literal["accuracy", "drop"] = "accuracy"
    """Accuracy, or its drop from eps 0: the excess of two runs' drops is what their gap grows by."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    check_attack("fgsm", settings, measured, [settings.eps] + [0.0] * (settings.of == "drop"))


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 where the image is right; of a drop, where it is right without attack less where it is right with it."""

    def values(arrays: Mapping[str, Any]) -> Any:
        now = 100.0 * right(arrays, settings.loss, settings.eps)
        return now if settings.of == "accuracy" else 100.0 * right(arrays, settings.loss, 0.0) - now

    return compared(settings, models, [model.each("fgsm", values) for model in models])
