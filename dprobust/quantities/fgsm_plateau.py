"""How flat the accuracy under FGSM is between two eps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dprobust.quantity import Model, QuantitySettings, check_attack, compared, right
from dprobust.settings import Pixels, ShownLoss
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Accuracy under FGSM at one eps less that at a larger one, in percent: 0 on a plateau."""

    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    unit: ClassVar[str] = "points"

    start: Pixels
    """The smaller eps."""
    end: Pixels
    """The larger eps."""
    loss: ShownLoss = "ce"
    """As for fgsm."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    check_attack("fgsm", settings, measured, [settings.start, settings.end])


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 times right at `start` less right at `end`."""

    def values(arrays: Mapping[str, Any]) -> Any:
        first, last = (right(arrays, settings.loss, eps) for eps in (settings.start, settings.end))
        return 100.0 * first - 100.0 * last

    return compared(settings, models, [model.each("fgsm", values) for model in models])
