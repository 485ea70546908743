"""Accuracy under PGD after a number of steps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.quantity import Model, QuantitySettings, at, check_attack, compared, right
from dprobust.settings import Count, Pixels, ShownLoss, fault
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Accuracy under PGD, in percent."""

    metrics: ClassVar[tuple[str, ...]] = ("pgd",)
    unit: ClassVar[str] = "points"

    eps: Pixels
    """Size of the ball; it must be measured."""
    steps: Count = 40
    """Number of steps; it must be measured."""
    loss: ShownLoss = "ce"
    """As for fgsm."""
    of: Literal["accuracy", "drop"] = "accuracy"
    """As for fgsm."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    check_attack("pgd", settings, measured, [settings.eps])
    if settings.steps not in measured["pgd"].steps:
        raise fault(f"steps: {settings.steps} is not measured (metrics.pgd.steps: {measured['pgd'].steps})")


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 where the image is right after so many steps; of a drop, the same without attack less that."""

    def values(arrays: Mapping[str, Any]) -> Any:
        now = 100.0 * right(arrays, settings.loss, settings.eps)[at(arrays["steps"], settings.steps)]
        return now if settings.of == "accuracy" else 100.0 * (arrays["clean"] == arrays["label"]) - now

    return compared(settings, models, [model.each("pgd", values) for model in models])
