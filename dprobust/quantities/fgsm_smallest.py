"""What the gap under FGSM grows by, at the eps where it grows least."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from dprobust.quantity import Model, QuantitySettings, at, check_attack, compared, right
from dprobust.settings import Pixels, ShownLoss
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """The smallest over all eps measured above 0, up to one, of the gap less the gap at eps 0, in percent."""

    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    unit: ClassVar[str] = "points"

    upto: Pixels
    """The largest eps; it must be measured."""
    loss: ShownLoss = "ce"
    """As for fgsm."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    check_attack("fgsm", settings, measured, [0.0, settings.upto])


def sample(settings: Quantity, models: Sequence[Model]) -> list[Sample]:
    """For each eps: 100 times right less right at eps 0."""
    axis = models[0].arrays["fgsm"][0]["eps"]
    radii = axis[1 - int(axis[0] != 0) : at(axis, settings.upto) + 1]

    def values(eps: float) -> Any:
        return lambda a: 100.0 * right(a, settings.loss, eps) - 100.0 * right(a, settings.loss, 0.0)

    return [compared(settings, models, [m.each("fgsm", values(eps)) for m in models]) for eps in np.asarray(radii)]
