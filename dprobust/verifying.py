"""Spot checks of a published study: random cells (run, seed, metric) are made again from scratch and compared.

A cell is a training, or a measurement of a model. Where the model is published it is measured again; where it is not,
it is trained again first, so that a cell then stands for both. What "the same" means:

* on a processor of the same name and instructions, with the same versions of `ARITHMETIC`: the same bytes;
* elsewhere, of a published model: numbers within `CLOSE` (absolute, and relative to the value) and other entries equal,
  but for at most `FEW` of a column's rows or an array's elements: rounding moves single images over a boundary;
* elsewhere, trained again: another arithmetic gives another network of the same law. Per metric the mean of a column
  lies within `SPREAD` times the range that the published seeds of the run show, plus `CLOSE`; with one seed there is
  no range, and a tenth of the mean is allowed. Arrays are not compared.
"""

import io
import json
import os
import random
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from dprobust import inventory, records
from dprobust.errors import UserError
from dprobust.files import sha256
from dprobust.inventory import Job
from dprobust.plan import Plan
from dprobust.published import Published
from dprobust.publishing import JOBS, array_digest, processor

ARITHMETIC = ("torch", "numpy", "randomgen", "opacus")
"""Libraries on whose versions the bytes of results depend."""
CLOSE = 1e-3
FEW = 0.01
SPREAD = 3.0
UNKNOWN = 60.0
"""Seconds that a job is taken for of whose stage no time is published."""


@dataclass(frozen=True)
class Asked:
    """What a check is asked: k cells, the seed of the draw (None: a random one, told), minutes that they may take, and
    processors (None: all)."""

    k: int = 3
    seed: int | None = None
    minutes: float = 15.0
    cores: int | None = None


@dataclass(frozen=True)
class Cell:
    """What can be made again: a job, the training it needs first (None: its model is published), and seconds of each
    by the published times."""

    job: Job
    training: Job | None
    seconds: float
    training_seconds: float

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are made again."""
        return [self.training, self.job] if self.training and self.training is not self.job else [self.job]


@dataclass(frozen=True)
class Finding:
    """A file of a cell, compared: whether it agrees, the largest difference, and in words how far."""

    path: str
    agrees: bool
    largest: float
    told: str


def capability() -> str:
    """The instructions that torch uses on this processor; "" where torch cannot be imported."""
    try:
        import torch
    except ImportError:
        return ""
    return torch.backends.cpu.get_cpu_capability()


def cells(plan: Plan, published: Published) -> list[Cell]:
    """The cells of a published study."""
    known = pd.read_csv(published.folder / JOBS)
    times = dict(zip(zip(known["stage"], known["job"].fillna(""), strict=True), known["seconds"], strict=True))
    means = known.groupby("stage")["seconds"].mean().to_dict()
    todo = inventory.made(plan)
    trained = {job.outputs[0]: job for job in todo if job.stage == "train"}

    def seconds(job: Job) -> float:
        stage = job.about["metric"] if job.stage == "measure" else job.stage
        name = "{dataset}/{run}/seed={seed}".format(**job.about)
        own = times.get((stage, name if job.rule == job.stage else job.rule))
        return float(own if own is not None else means.get(stage, UNKNOWN))

    found = []
    for job in todo:
        if job.stage == "train" and job.outputs[1] in published:
            found.append(Cell(job, job, 0.0, seconds(job)))
        elif job.stage == "measure" and job.outputs[0] in published:
            training = None if job.inputs[0] in published else trained.get(job.inputs[0])
            found.append(Cell(job, training, seconds(job), seconds(training) if training else 0.0))
    return found


def choose(
    found: Sequence[Cell],
    asked: Asked,
    cores: int,
    draw: random.Random,
    had: Callable[[Cell], bool] = lambda cell: True,
) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """Draw cells one by one until there are k that fit into the time together.

    Args:
        found: to draw from.
        asked: k and the minutes.
        cores: processors, each of which does a job at a time.
        draw: the randomness.
        had: whether the data of a cell can be had.

    Returns:
        Those drawn, and those that were drawn but left out, with the reason.
    """
    order = list(found)
    draw.shuffle(order)
    chosen: list[Cell] = []
    left_out: list[tuple[Cell, str]] = []
    for cell in order:
        if len(chosen) == asked.k:
            break
        if (took := minutes([*chosen, cell], cores)) > asked.minutes:
            left_out.append((cell, f"{took:.1f} minutes with what is drawn already"))
        elif not had(cell):
            left_out.append((cell, "its data cannot be had here"))
        else:
            chosen.append(cell)
    return chosen, left_out


def minutes(chosen: Iterable[Cell], cores: int) -> float:
    """Minutes that cells take by the published times: no less than the longest chain of jobs, nor than all by all
    processors. A training that several need is done once."""
    chosen = list(chosen)
    trainings = {cell.training.name: cell.training_seconds for cell in chosen if cell.training}
    total = sum(trainings.values()) + sum(cell.seconds for cell in chosen)
    longest = max((cell.training_seconds + cell.seconds for cell in chosen), default=0.0)
    return max(longest, total / cores) / 60


def verify(
    plan: Plan,
    published: Published,
    asked: Asked,
    make: Callable[[list[str], list[str], Path], None],
    obtain: Callable[[list[str]], bool] = lambda paths: True,
) -> bool:
    """Draw cells, make them again in a temporary folder, compare, and print all of it.

    Args:
        plan: of the study, by the code and config that are here.
        published: the study as published; none of its files is written to.
        asked: what to do.
        make: makes files in a folder, given which published files to begin with.
        obtain: gets the files of datasets; whether it could.

    Returns:
        Whether every cell agrees.

    Raises:
        UserError: the published files are damaged, or config or code ask for something else.
    """
    published.check()
    todo = inventory.made(plan)
    if lines := published.stale(todo):
        raise UserError(f"{published.folder} is not what config and code now ask for: {'; '.join(lines[:4])}")
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    cores = asked.cores or _processors()
    found = cells(plan, published)
    chosen, left_out = choose(found, asked, cores, random.Random(seed), lambda cell: obtain(_data(plan, cell)))
    print(f"Drawn of {len(found)} cells with seed {seed}, about {minutes(chosen, cores):.1f} minutes on {cores} cores:")
    for cell in chosen:
        how = "trained again" if cell.training is cell.job else "measured again"
        print(f"  {cell.job.name}: {'trained and measured again' if len(cell.jobs) == 2 else how}")
    by_reason: dict[str, list[str]] = {}
    for cell, reason in left_out:
        by_reason.setdefault("time" if "minutes" in reason else reason, []).append(cell.job.name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        told = f"beyond {asked.minutes:g} minutes" if reason == "time" else reason
        print(f"  left out, {told}: {', '.join(names[:3])}{more}")
    if not chosen:
        raise UserError("no cell fits; give more time: make verify MINUTES=60")
    models = _models(todo, published)
    again = list(dict.fromkeys(job.name for cell in chosen for job in cell.jobs))
    paths = [path for job in todo if job.name in again for path in job.outputs]
    given = [path for cell in chosen for path in cell.job.inputs if path in published and not cell.training]
    given += [path for job in todo if job.stage == "pretrain" for path in job.outputs if path in published]
    with TemporaryDirectory() as folder:
        make(paths, list(dict.fromkeys(given)), Path(folder))
        agree, largest = True, 0.0
        for job in (job for job in todo if job.name in again):
            fresh = any(cell.training and job in cell.jobs for cell in chosen)
            for finding in compare(job, published, Path(folder), models, fresh, todo):
                agree &= finding.agrees
                largest = max(largest, finding.largest) if np.isfinite(finding.largest) else largest
                print(f"{'agrees ' if finding.agrees else 'DIFFERS'}  {finding.path}: {finding.told}")
    print(f"{'All agree' if agree else 'Not all agree'}; largest difference of a number {largest:.3g}.")
    return agree


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _data(plan: Plan, cell: Cell) -> list[str]:
    """The files of datasets that a cell is made from."""
    paths = [path for job in cell.jobs for path in job.inputs if path.startswith("data/")]
    if cell.training:
        paths += [plan.data_of(cell.job.about["dataset"], split) for split in ("train", "test")]
    return list(dict.fromkeys(paths))


def _models(todo: Iterable[Job], published: Published) -> dict[str, str]:
    """The SHA-256 of models by path, as what was measured of them tells it."""
    found: dict[str, str] = {}
    for job in todo:
        if job.stage == "measure" and job.outputs[2] in published and job.inputs[0] not in found:
            inputs = json.loads(published.content(job.outputs[2]))["inputs"]
            found |= {path: digest for path, digest in inputs.items() if path == job.inputs[0]}
    return found


# -- comparing --------------------------------------------------------------------------------------------------------


def exactly(was: Mapping[str, Any], now: Mapping[str, Any], published: Published) -> bool:
    """Whether two provenances are of the same arithmetic, so that results are to be the same bytes."""
    machine = published.manifest["machine"]
    here = (machine["cpu"], machine["capability"]) == (processor(), capability())
    same = all(was["versions"].get(name) == now["versions"].get(name) for name in ARITHMETIC)
    return here and same and was["device"] == now["device"]


def compare(
    job: Job, published: Published, folder: Path, models: Mapping[str, str], fresh: bool, todo: Iterable[Job]
) -> list[Finding]:
    """The files of a job that was made again, against those published.

    Args:
        job: the job.
        published: the study as published.
        folder: where results/ has what was made again.
        models: SHA-256 of the models that were measured, by path.
        fresh: whether it was trained again or measured on a model trained again.
        todo: the jobs of the study; of its other seeds their range is taken.
    """
    told = next(path for path in job.outputs if path.endswith(".json"))
    was, now = json.loads(published.content(told)), records.read_json(folder / told)
    exact = exactly(was, now, published)
    others = [
        other
        for other in todo
        if other.stage == job.stage and _but_seed(other) == _but_seed(job) and other.outputs[0] is not job.outputs[0]
    ]
    if job.stage == "train":
        return [_history(told, was, now, exact, _ranges(_final, others, 1, published, job))] + _model(
            job.outputs[0], published.digest(job.outputs[0]) or models.get(job.outputs[0]), folder, exact
        )
    table, arrays = job.outputs[0], job.outputs[1]
    ranges = _ranges(lambda content: _means(_table(content)), others, 0, published, job)
    found = [_csv(table, published.content(table), (folder / table).read_bytes(), exact, fresh, ranges)]
    if arrays in published and (exact or not fresh):
        found.append(_npz(arrays, published, folder / arrays, exact))
    return found


def _but_seed(job: Job) -> list[str]:
    return [value for name, value in job.about.items() if name != "seed"]


def _model(path: str, digest: str | None, folder: Path, exact: bool) -> list[Finding]:
    if digest is None:
        return []
    same = sha256(folder / path) == digest
    return [Finding(path, same or not exact, 0.0 if same else np.nan, "identical" if same else "another network")]


def _history(path: str, was: Any, now: Any, exact: bool, ranges: Mapping[Any, float]) -> Finding:
    parts = ("history", "mechanism", "settings", "stream", "code")
    other = [name for name in parts if was.get(name) != now.get(name)]
    if not other:
        return Finding(path, True, 0.0, "identical")
    if exact or other != ["history"]:
        return Finding(path, False, np.nan, f"{', '.join(other)}: not as published")
    return _by_means(path, _final(json.dumps(was).encode()), _final(json.dumps(now).encode()), ranges)


def _csv(path: str, was: bytes, now: bytes, exact: bool, fresh: bool, ranges: Mapping[Any, float]) -> Finding:
    if was == now:
        return Finding(path, True, 0.0, "identical")
    old, new = _table(was), _table(now)
    if list(old) != list(new) or (len(old) != len(new) and not (fresh and not exact)):
        return Finding(path, False, np.nan, "other columns or rows")
    if fresh and not exact:
        return _by_means(path, _means(old), _means(new), ranges)
    worst, where, agrees = 0.0, "", True
    for column in old:
        largest, share = _apart(old[column].to_numpy(), new[column].to_numpy())
        agrees &= share <= (0.0 if exact else FEW)
        if largest > worst or (share and not where):
            worst, where = max(largest, worst), f"column {column}: {share:.1%} of rows, "
    return Finding(path, agrees and not exact, worst, f"{where}largest difference {worst:.3g}")


def _npz(path: str, published: Published, now: Path, exact: bool) -> Finding:
    with np.load(io.BytesIO(published.content(path)), allow_pickle=False) as file:
        old = {name: file[name] for name in file.files}
    new = records.Arrays(now)
    left_out = published.files[published._name(path)].get("left_out", {})
    if set(new) != {*old, *left_out}:
        return Finding(path, False, np.nan, "other arrays")
    worst, where, agrees = 0.0, "", True
    for name, values in old.items():
        if values.shape != new[name].shape:
            return Finding(path, False, np.nan, f"{name}: another shape")
        largest, share = _apart(values.ravel(), new[name].ravel())
        if share > (0.0 if exact else FEW) or (exact and array_digest(values) != array_digest(new[name])):
            agrees, where = False, f"{name}: {share:.1%} of elements, "
        worst = max(worst, largest)
    if exact and (other := [name for name, digest in left_out.items() if array_digest(new[name]) != digest]):
        return Finding(path, False, np.nan, f"{', '.join(other)}: not as published")
    same = "identical" if agrees and not worst else f"{where}largest difference {worst:.3g}"
    return Finding(path, agrees, worst, same)


def _apart(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """The largest difference of numbers, and the share of entries that are not close."""
    if not old.size:
        return 0.0, 0.0
    if old.dtype.kind == "f" and new.dtype.kind in "fiu":
        apart = np.abs(old.astype(float) - new.astype(float))
        apart = np.where((old == new) | (np.isnan(old) & np.isnan(new)), 0.0, np.nan_to_num(apart, nan=np.inf))
        return float(apart.max()), float((apart > CLOSE * (1 + np.abs(old))).mean())
    other = pd.Series(old).ne(pd.Series(new)) & ~(pd.isna(old) & pd.isna(new))
    return 0.0, float(other.mean())


def _table(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content))


def _means(table: pd.DataFrame) -> dict[Any, float]:
    """The mean of every column of fractions, by metric where the record has several."""
    groups = table.groupby("metric") if "metric" in table else [("", table)]
    numbers = [name for name in table if table[name].dtype.kind == "f"]
    return {
        (metric, name): float(mean)
        for metric, rows in groups
        for name in numbers
        if np.isfinite(mean := rows[name].replace([np.inf, -np.inf], np.nan).mean())
    }


def _final(content: bytes) -> dict[Any, float]:
    """The last numbers of a training's history."""
    last = json.loads(content)["history"][-1]
    return {name: float(value) for name, value in last.items() if name.endswith("accuracy") and value is not None}


def _ranges(
    summary: Callable[[bytes], dict[Any, float]], others: Iterable[Job], which: int, published: Published, job: Job
) -> dict[Any, float]:
    """How far the published seeds of a run lie apart, by number; empty where there is one seed only."""
    paths = [other.outputs[which] for other in (*others, job) if other.outputs[which] in published]
    each = [summary(published.content(path)) for path in paths]
    if len(each) < 2:
        return {}
    common = set.intersection(*map(set, each))
    return {name: max(one[name] for one in each) - min(one[name] for one in each) for name in common}


def _by_means(path: str, old: Mapping[Any, float], new: Mapping[Any, float], ranges: Mapping[Any, float]) -> Finding:
    worst, where, agrees = 0.0, "", set(old) == set(new)
    for name in set(old) & set(new):
        apart = abs(old[name] - new[name])
        allowed = CLOSE + (SPREAD * ranges[name] if name in ranges else 0.1 * abs(old[name]))
        agrees &= apart <= allowed
        if apart >= worst:
            worst, where = apart, f"mean of {' '.join(filter(None, name)) if isinstance(name, tuple) else name}"
    return Finding(path, agrees, worst, f"trained in other arithmetic; {where}: largest difference {worst:.3g}")
