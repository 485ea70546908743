"""Accuracy on corrupted test sets."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from dprobust.quantity import Model, QuantitySettings, at, compared
from dprobust.settings import Unique
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Accuracy on corrupted test sets, in percent, the average over corruptions."""

    metrics: ClassVar[tuple[str, ...]] = ("corruptions",)
    unit: ClassVar[str] = "points"

    corruptions: Annotated[list[str], Unique] = []
    """Those averaged over; none named: all, without the clean images."""


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 times the share of the corruptions that the image is right under."""

    def values(arrays: Mapping[str, Any]) -> Any:
        names = settings.corruptions or [name for name in arrays["corruption"] if name != "identity"]
        places = [at(arrays["corruption"], name) for name in names]
        return 100.0 * (arrays["predicted"][places] == arrays["label"]).mean(axis=0)

    return compared(settings, models, [model.each("corruptions", values) for model in models])
