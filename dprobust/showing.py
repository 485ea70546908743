"""What a display is given and gives back. A display is a folder: display.py (`Display`), show.py (`show`), caption.rst.

`show(given, settings)` returns, by the kind of the display (a class attribute of `Display`):

* "figure": a matplotlib Figure and the numbers in it (DataFrame);
* "table": the numbers (DataFrame) and the table to read (DataFrame of texts);
* "page": HTML (text, to stand inside a page) and the numbers in it (DataFrame);
* "claims": the numbers (DataFrame), a text for each of the suffixes that are texts (dict).
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dprobust.runs import Run

FORMATS = {
    "figure": ("pdf", "png", "csv"),
    "table": ("csv", "tex", "html"),
    "page": ("html", "csv"),
    "claims": ("csv", "md", "html", "json"),
}
"""Kind -> suffixes of its files."""

MARK = "†"

Outcomes = Mapping[tuple[str, Hashable], np.ndarray]
"""(run name, what) -> of each image whether it is right, or another number: float64 (seeds, ..., images), the same
images for all."""


@dataclass(frozen=True)
class Given:
    """What a display shows: the records it asked for, of its runs.

    A display asks by class attributes of its `Display`: `kind`; `metrics`, names of metrics; `privacy`, `training`,
    `pretraining`, whether it wants those records; `images`, whether it wants the arrays (.npz) of its metrics as well;
    `flags`, whether it marks runs that a metric casts doubt on (one with a flags.py), where the study measures it;
    `explains`, its place among what tells why in the report, from 1.
    """

    runs: tuple[Run, ...] = ()
    """In the order to show them in; of a display of all datasets each stands once for each dataset."""
    datasets: tuple[str, ...] = ()
    """The dataset of each of `runs`."""
    records: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Metric -> rows of its CSVs; columns dataset, run, seed, metric, the metric's parameters, n, value."""
    arrays: Mapping[tuple[str, str, str, int], Mapping[str, np.ndarray]] = field(default_factory=dict)
    """(metric, dataset, run name, seed) -> arrays of its .npz, `index` and `label` among them."""
    privacy: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Privacy records: dataset, run, sampling, noise_multiplier, sample_rate, steps, epochs, of truncated_poisson
    batch_cap and examples, delta, adjacency (of a delta first the one that heads the privacy table), accountant,
    epsilon, guarantee."""
    trained: tuple[Mapping[str, Any], ...] = ()
    """train.json of each training: dataset, run, seed, history, mechanism, settings, ..."""
    pretrained: tuple[Mapping[str, Any], ...] = ()
    """pretrain.json of each pre-training: dataset, public, history, ..."""
    paper: pd.DataFrame | None = None
    """The file with stated values that the settings name (`paper`), as read by pandas; None if they name none."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Further files that `needs` of its display.py asks for: key -> file."""
    flags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What casts doubt on the robustness of runs -> run name -> what it found, of a display that asks for `flags`."""
    note: str = ""
    """Small print that must stand on it: the study's label, and data that is not the official."""

    @property
    def epsilons(self) -> dict[str, float]:
        """Run name -> epsilon at the run's first delta and for its first adjacency, by the tightest accountant."""
        if self.privacy.empty:
            return {}
        first = self.privacy
        for column in ("delta", "adjacency"):
            if column in first:
                first = first[first[column] == first.groupby("run")[column].transform("first")]
        return first.groupby("run")["epsilon"].min().to_dict()

    def label(self, run: Run) -> str:
        """A run in a legend: algorithm, settings, its epsilon, and a mark where its robustness is in doubt."""
        return run.label(self.epsilons.get(run.name)) + self.mark(run.name)

    def mark(self, run: str) -> str:
        """The mark of a run that something measured casts doubt on; empty for none."""
        return f" {MARK}" if any(run in found for found in self.flags.values()) else ""

    @property
    def footnote(self) -> str:
        """`note`, and what the marks mean."""
        names, told = {run.name: run.label() for run in self.runs}, [self.note] if self.note else []
        for by, found in self.flags.items():
            grouped: dict[str, list[str]] = {}
            for run, flags in found.items():
                grouped.setdefault(flags, []).append(names[run])
            parts = [f"{' and '.join(runs)}: {flags}" for flags, runs in grouped.items()]
            told += [f"{MARK} {by}: {'; '.join(parts)}"] if parts else []
        return ". ".join(told)

    def outcomes(
        self, metric: str, of: Callable[[Mapping[str, np.ndarray]], Mapping[Hashable, np.ndarray]], dataset: str = ""
    ) -> Outcomes:
        """What the arrays of a metric tell of the runs shown, the seeds in their order.

        Args:
            metric: one that the display asks for, with `images`.
            of: function of the arrays of a record that gives, by what it is, an array (..., images).
            dataset: of a display of several; by default all are of one.
        """
        found: dict[tuple[str, Hashable], list[np.ndarray]] = {}
        names = {run.name for run in self.runs}
        for (measured, data, run, _), arrays in sorted(self.arrays.items(), key=lambda item: item[0][3]):
            if measured == metric and run in names and dataset in ("", data):
                for what, values in of(arrays).items():
                    found.setdefault((run, what), []).append(values)
        return {key: np.stack(values).astype(np.float64) for key, values in found.items()}


def intervals(seeds: int) -> str:
    """What the intervals of a study with so many seeds are, for captions."""
    if seeds > 1:
        return "95 % intervals over seeds and images together (both are drawn)"
    return "95 % intervals over images only (there is one seed: other trainings are not covered)"
