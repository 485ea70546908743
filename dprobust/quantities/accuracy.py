"""Accuracy on the test images as they are."""

from collections.abc import Sequence
from typing import ClassVar

from dprobust.quantity import Model, QuantitySettings, compared
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Accuracy without attack, in percent."""

    metrics: ClassVar[tuple[str, ...]] = ("clean",)
    unit: ClassVar[str] = "points"


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 where the image is right."""
    values = [m.each("clean", lambda a: 100 * (a["logits"].argmax(axis=1) == a["label"])) for m in models]
    return compared(settings, models, values)
