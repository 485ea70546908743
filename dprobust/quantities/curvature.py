"""The largest eigenvalue of the cross-entropy's Hessian with respect to the image."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.quantity import Model, QuantitySettings, compared
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Mean or median of the largest eigenvalue over images."""

    metrics: ClassVar[tuple[str, ...]] = ("curvature",)

    compare: Literal["level", "gap", "excess", "ratio", "trend"] = "ratio"
    """As for every quantity."""
    of: Literal["eigenvalue", "confidence_free"] = "eigenvalue"
    """The eigenvalue, or the same divided by p1 p2, which the model's confidence does not move."""
    statistic: Literal["mean", "median"] = "mean"
    """Over the images."""


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """The eigenvalue of each image."""

    def values(arrays: Mapping[str, Any]) -> Any:
        return arrays["eigenvalues"][0] if settings.of == "eigenvalue" else arrays["confidence_free"]

    return compared(settings, models, [model.each("curvature", values) for model in models], settings.statistic)
