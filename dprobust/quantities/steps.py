"""PGD steps until an image is first misclassified."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from dprobust.quantity import Model, QuantitySettings, at, check_attack, compared
from dprobust.settings import Loss, Pixels, Step, fault
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Median number of PGD steps until an image that is right at first is wrong; never counts as one step more than
    were tried."""

    metrics: ClassVar[tuple[str, ...]] = ("pgd_iterations",)
    unit: ClassVar[str] = "steps"

    eps: Pixels
    """Size of the ball; it must be measured."""
    alpha: Step
    """Size of a step; it must be measured."""
    loss: Loss = "ce"
    """As for fgsm."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    check_attack("pgd_iterations", settings, measured, [settings.eps])
    if settings.alpha not in (alphas := measured["pgd_iterations"].alphas):
        raise fault(f"alpha: {settings.alpha:g} is not measured (metrics.pgd_iterations.alphas: {alphas})")


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """The first step after which the image is wrong; nan where it is from the start."""

    def values(arrays: Mapping[str, Any]) -> Any:
        place = (("loss", settings.loss), ("eps", settings.eps), ("alpha", settings.alpha))
        first = arrays["first"][tuple(at(arrays[axis], value) for axis, value in place)]
        return np.where(first == 0, np.nan, first)

    return compared(settings, models, [model.each("pgd_iterations", values) for model in models], "median")
