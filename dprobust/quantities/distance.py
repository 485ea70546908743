"""Distance of images to the decision boundary."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from dprobust.quantity import Model, QuantitySettings, at, compared
from dprobust.settings import fault
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Mean or median distance to the boundary, pixels in [0, 1]."""

    metrics: ClassVar[tuple[str, ...]] = ("distances",)

    norm: Literal["l2", "linf"]
    """Norm of the distance."""
    by: Literal["linear", "deepfool"] = "linear"
    """linear is Eq. 4 of the paper, deepfool walks to the boundary."""
    of: Literal["all", "correct"] = "all"
    """All images, as Eq. 4 takes an absolute value; or those that the model classifies correctly."""
    statistic: Literal["mean", "median"] = "mean"
    """The mean is of finite distances; in the median infinite ones count."""


def check(settings: Quantity, measured: Mapping[str, Any]) -> None:
    if settings.by == "deepfool" and not measured["distances"].deepfool:
        raise fault("by: deepfool is not measured (metrics.distances.deepfool)")


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """The distance; nan where the image does not count."""

    def values(arrays: Mapping[str, Any]) -> Any:
        norm, correct = at(arrays["norm"], settings.norm), arrays["correct"]
        if settings.by == "linear":
            found = arrays["distance"][norm]
        else:
            found = arrays["deepfool_distance"][norm]
            correct = correct[np.isin(arrays["index"], arrays["deepfool_index"])]
        counts = correct if settings.of == "correct" else np.ones_like(correct)
        if settings.statistic == "mean":
            counts = counts & np.isfinite(found)
        return np.where(counts, found.astype(np.float64), np.nan)

    return compared(settings, models, [model.each("distances", values) for model in models], settings.statistic)
