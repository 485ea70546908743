"""Accuracy after the whole ladder of attacks."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.quantity import Model, QuantitySettings, at, compared
from dprobust.settings import Positive, fault
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Accuracy that no attack of the ladder breaks, in percent."""

    metrics: ClassVar[tuple[str, ...]] = ("ladder",)
    unit: ClassVar[str] = "points"

    eps: Positive
    """Size of the ball; it must be measured."""
    of: Literal["accuracy", "drop"] = "accuracy"
    """As for fgsm."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    if settings.eps not in (grid := measured["ladder"].eps):
        raise fault(f"eps: {settings.eps:g} is not measured (metrics.ladder.eps: {', '.join(f'{e:g}' for e in grid)})")


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 where nothing breaks the image; of a drop, where it is right as it is and something breaks it."""

    def values(arrays: Mapping[str, Any]) -> Any:
        broken_by = arrays["broken_by"][at(arrays["eps"], settings.eps)]
        return 100.0 * (broken_by < 0 if settings.of == "accuracy" else broken_by > 0)

    return compared(settings, models, [model.each("ladder", values) for model in models])
