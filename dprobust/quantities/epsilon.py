"""epsilon of a run, by the tightest accountant."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from dprobust.quantity import Model, QuantitySettings
from dprobust.settings import Probability


class Quantity(QuantitySettings):
    """epsilon at a delta; exact."""

    privacy: ClassVar[bool] = True

    compare: Literal["level"] = "level"
    """Of one run."""
    delta: Probability
    """It must be among the dataset's privacy.deltas."""
    neighbours: Literal["first", "replace one"] = "first"
    """The sampler's usual neighbours, or data sets with one example replaced, the stronger notion."""


def sample(settings: Quantity, models: Sequence[Model]) -> float:
    """The smallest of the accountants'.

    Raises:
        ValueError: not accounted for.
    """
    rows = models[0].privacy
    rows = rows[rows["delta"] == settings.delta]
    wanted = rows["adjacency"].iloc[0] if settings.neighbours == "first" and len(rows) else settings.neighbours
    rows = rows[rows["adjacency"] == wanted]
    if rows.empty:
        raise ValueError(f"{models[0].run.name} has no epsilon at delta {settings.delta:g} for {settings.neighbours}")
    return float(rows["epsilon"].min())
