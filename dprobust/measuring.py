"""What a metric is given and gives back. A metric is a folder: settings.py (`Metric`), measure.py (`measure`).

A metric may ask for more by constants of its settings.py: `TRAINED = True` for how the model was trained
(`Images.trained`), `TRAIN_IMAGES = True` for the training images (`Images.train`), `others` for models of other runs
(`Images.others`). With `FLAGS = True` it has a flags.py whose `flags(records, settings)` says what it casts doubt on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from dprobust.arrays import Split

RESERVED = ("index", "label")
"""Arrays that every record has besides the metric's own: of `Images`, the places in the test set and the labels."""


@dataclass(frozen=True)
class Images:
    """The test images that a metric is to measure on."""

    x: Tensor
    """float32 (N, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels, int64 (N,)."""
    index: Tensor
    """Places of the images in the test set, int64 (N,), ascending."""
    order: Tensor
    """The images in the order of the study's draw, as places in `x`, int64 (N,)."""
    about: Mapping[str, str] = field(default_factory=dict)
    """dataset, run, seed: names that random streams are derived from, if need be."""
    needs: Mapping[str, Path] = field(default_factory=dict)
    """What the metric needs besides (`needs` of its settings.py): key -> file."""
    trained: Mapping[str, Any] | None = None
    """With `TRAINED`, the record of the model's training (train.json): dataset, run, seed, settings, mechanism, ...;
    None for given weights."""
    train: Callable[[], Split] | None = None
    """With `TRAIN_IMAGES`, reads the training images in use, those held out for a stop among them."""

    others: Mapping[str, nn.Module] = field(default_factory=dict)
    """Models of other runs, by their names, that the metric asks for by `others(settings, run, known)` of its
    settings.py: names of runs for the one by name `run`, of a study whose models are of the runs `known`."""

    def first(self, n: int | None) -> Tensor:
        """Places in `x` of the first `n` images of the draw, ascending; of all if None or there are no more."""
        return self.order[:n].sort().values


class Measured:
    """What a metric has measured: rows of the record (CSV), and arrays that keep it image by image (npz)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, metric: str, values: Tensor, **parameters: Any) -> None:
        """Add the mean of booleans or numbers, one an image, with the parameters it belongs to."""
        row = {"metric": metric, **parameters, "n": len(values), "value": values.double().mean().item()}
        self.rows.append(row)

    def add_each(self, **columns: Iterable[Any] | Tensor) -> None:
        """Add columns (tensors or lists of equal length) row by row."""
        lists = {name: column.tolist() if hasattr(column, "tolist") else column for name, column in columns.items()}
        self.rows += [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]

    def keep(self, name: str, values: Tensor | Sequence[str] | Sequence[float]) -> None:
        """Keep an array in the type it has, or a list of texts or numbers that names the places along an axis.

        The last axis is the images', those of `index`, unless the metric's docstring says otherwise.
        """
        if name in RESERVED or name in self.arrays:
            raise ValueError(f"array {name} is there already")
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype.kind not in "biufU":
            raise ValueError(f"array {name} has type {array.dtype}, which an npz does not hold as it is")
        self.arrays[name] = array
