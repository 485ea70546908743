"""What a quantity is given and gives back. A quantity is a module of a folder quantities/: settings, a sample.

Its `Quantity` says of its arguments what they are, and by class attributes which `metrics` it reads, whether it reads
the `privacy` records, and its `unit`. Its function

    sample(settings, models) -> Sample | list[Sample] | float

makes values of single images from the records (`dprobust.statistics.Sample`); of several samples the smallest counts,
and a float is exact. `check(settings, measured)`, if there is one, refuses what is not measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from dprobust.runs import Run
from dprobust.settings import Settings, ShownLoss, fault
from dprobust.statistics import Sample, difference, ratio

Arrays = Mapping[str, np.ndarray]


class QuantitySettings(Settings):
    """What every quantity has in common."""

    metrics: ClassVar[tuple[str, ...]] = ()
    privacy: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    name: str
    """The quantity: a module of dprobust/quantities or of an extension's folder of that name."""
    compare: Literal["level", "gap", "excess", "ratio", "trend"] = "gap"
    """How runs are compared - the level of one run, the gap first less second, the excess second less first, the ratio
    second over first, or the trend over a sweep: the least-squares slope per doubling of what is swept."""
    along: Literal["sigma", "clip"] | None = None
    """What a trend is over."""


@dataclass(frozen=True)
class Model:
    """The records of a run."""

    run: Run
    arrays: Mapping[str, Sequence[Arrays]] = field(default_factory=dict)
    """Metric -> the arrays of each seed's npz."""
    privacy: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Its rows of the privacy record."""

    def each(self, metric: str, values: Callable[[Arrays], np.ndarray]) -> np.ndarray:
        """(S, N): values of single images of a seed's arrays, a row a seed."""
        return np.stack([np.asarray(values(arrays), dtype=np.float64) for arrays in self.arrays[metric]])


def compared(
    settings: QuantitySettings, models: Sequence[Model], values: Sequence[np.ndarray], reduce: str = "mean"
) -> Sample:
    """Values (S, N) of runs, compared as the settings say."""
    if settings.compare == "ratio":
        return Sample(tuple(values), ratio, reduce, log=True)
    if settings.compare == "trend":
        place = np.log2([getattr(model.run, settings.along) for model in models])
        weights = (place - place.mean()) / ((place - place.mean()) ** 2).sum()
        return Sample(tuple(values), lambda *runs: sum(w * x for w, x in zip(weights, runs, strict=True)), reduce)
    rules = {"level": lambda only: only, "gap": difference, "excess": lambda first, second: second - first}
    return Sample(tuple(values), rules[settings.compare], reduce)


def check_runs(settings: QuantitySettings, runs: Sequence[Run]) -> None:
    """Whether runs can be compared as asked.

    Raises:
        PydanticCustomError: too few or too many runs, or no sweep.
    """
    wanted = {"level": (1, 1), "trend": (2, 99)}.get(settings.compare, (2, 2))
    if not wanted[0] <= len(runs) <= wanted[1]:
        number = wanted[0] if wanted[0] == wanted[1] else "two or more"
        raise fault(f"compare: {settings.compare} is of {number} run(s), there are {len(runs)}")
    if settings.compare != "trend":
        return
    if settings.along is None:
        raise fault("along: a trend needs sigma or clip")
    values = [getattr(run, settings.along) for run in runs]
    if not all(values) or len(set(values)) < 2:
        raise fault(f"along: the runs need values of {settings.along} above 0, two or more that differ")


def at(axis: np.ndarray, value: Any) -> int:
    """The place of a value along an axis of a record; nothing is interpolated.

    Raises:
        ValueError: it was not measured.
    """
    same = (
        np.isclose(axis, value, rtol=1e-9, atol=0) if np.asarray(axis).dtype.kind in "fi" else np.asarray(axis) == value
    )
    if not same.any():
        raise ValueError(f"{value} is not among what was measured ({axis})")
    return int(same.argmax())


def right(arrays: Arrays, loss: ShownLoss, eps: float) -> np.ndarray:
    """bool, the loss's and the eps's axes of `predicted` taken: which images the attack leaves right."""
    predicted = arrays["predicted"][:, at(arrays["eps"], eps)]
    correct = predicted == arrays["label"]
    return correct.all(axis=0) if loss == "worst" else correct[at(arrays["loss"], loss)]


def check_attack(metric: str, settings: Any, measured: Mapping[str, Any], radii: Sequence[float]) -> None:
    """Whether eps and loss of an attack are measured.

    Raises:
        PydanticCustomError: they are not.
    """
    grid, losses = measured[metric].eps, measured[metric].losses
    if missing := [eps for eps in radii if eps not in grid]:
        raise fault(f"eps: {missing[0]:g} is not measured (metrics.{metric}.eps: {', '.join(f'{e:g}' for e in grid)})")
    if settings.loss != "worst" and settings.loss not in losses:
        raise fault(f"loss: {settings.loss} is not measured (metrics.{metric}.losses: {', '.join(losses)})")
