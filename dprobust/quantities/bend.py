"""How much decision regions in normal cross-sections differ from those of a flat boundary."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from dprobust.quantity import Model, QuantitySettings, compared
from dprobust.settings import Positive
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """Share of the points of the cross-section, in percent, near the boundary point, that a flat boundary through it
    would put on the other side."""

    metrics: ClassVar[tuple[str, ...]] = ("cross_sections",)
    unit: ClassVar[str] = "points"

    compare: Literal["level", "gap", "excess", "ratio", "trend"] = "excess"
    """As for every quantity."""
    within: Positive = 3.0
    """Points so far from the boundary point along either side count (l2 distance, pixels in [0, 1])."""


def sample(settings: Quantity, models: Sequence[Model]) -> Sample:
    """100 times the share, of each image; nan where the square has no such points."""

    def values(arrays: Mapping[str, Any]) -> Any:
        offset = arrays["offset"].astype(np.float64)
        shares = []
        for plane, own, distance in zip(arrays["plane"], arrays["predicted"], arrays["distance"], strict=True):
            rows = np.abs(offset - distance) <= settings.within
            flat = np.broadcast_to((offset < distance)[:, None], plane.shape)
            near = rows[:, None] & (np.abs(offset) <= settings.within)[None]
            shares.append(100.0 * ((plane == own) != flat)[near].mean() if near.any() else np.nan)
        return np.array(shares)

    return compared(settings, models, [model.each("cross_sections", values) for model in models])
