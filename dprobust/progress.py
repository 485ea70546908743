"""How far a study is, from the files in its results folder."""

import json
import re
import struct
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from dprobust import privacy, seals
from dprobust.plan import MODEL, PRIVACY, RECORD, TRAINED, Plan
from dprobust.recipe import Training
from dprobust.remaining import told
from dprobust.showing import Given

CHECKPOINT = MODEL.replace("model.safetensors", "checkpoint.safetensors")
LOG = "results/{study}/logs/train/{dataset}/{run}/seed={seed}.log"
EPOCH = re.compile(r"epoch (\d+) of (\d+): test accuracy [\d.]+ %, ([\d.]+) min left$", re.MULTILINE)
"""What a training writes into its log after an epoch."""


def progress(plan: Plan) -> pd.DataFrame:
    """What is trained and measured of each run.

    Whether a file is still what the config and the code ask for only a dry run tells (``snakemake -n``).

    Returns:
        A row a run: dataset, run, seeds (how many there are to be), trained (how many are; of given weights none are to
        be), training (of each unfinished training its seed, then `SoFar` in words), accuracy (mean test accuracy of the
        trained, 0 to 1), epsilon (`dprobust.showing.Given.epsilons`), measured and to_measure (records there, and to
        be), missing (metrics that lack a record), broken (files that are not what their seals say, `dprobust.seals`).
    """
    study, rows = plan.study, []
    for dataset in study.datasets:
        for run in study.runs(dataset):
            seeds = study.seeds_of(run)
            where = {"dataset": dataset, "run": run.base}
            trained = [found for found in (_json(plan, TRAINED, seed=seed, **where) for seed in seeds) if found]
            metrics = list(
                dict.fromkeys(m for d in study.displays.values() if (dataset, run) in d.runs for m in d.asks("metrics"))
            )
            records = {
                metric: [_file(plan, RECORD, dataset=dataset, run=run.name, seed=seed, metric=metric) for seed in seeds]
                for metric in metrics
            }
            files = [_file(plan, pattern, seed=seed, **where) for pattern in (MODEL, TRAINED) for seed in seeds]
            files += [
                p.with_suffix(end) for paths in records.values() for p in paths for end in (".csv", ".npz", ".json")
            ]
            broken = seals.broken([*files, _file(plan, PRIVACY, **where)])
            accuracies = [record["history"][-1]["test_accuracy"] for record in trained]
            rows.append(
                {
                    "dataset": dataset,
                    "run": run.name,
                    "seeds": len(seeds),
                    "trained": len(trained) if run.training else None,
                    "training": "; ".join(filter(None, (_training(plan, seed, where) for seed in seeds))),
                    "accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
                    "epsilon": _epsilon(plan, where),
                    "measured": sum(path.exists() for paths in records.values() for path in paths),
                    "to_measure": sum(len(paths) for paths in records.values()),
                    "missing": ", ".join(m for m, paths in records.items() if not all(p.exists() for p in paths)),
                    "broken": ", ".join("/".join(path.parts[-2:]) for path in broken),
                }
            )
    return pd.DataFrame(rows)


def _file(plan: Plan, pattern: str, **values: Any) -> Path:
    return Path(plan.files(pattern, **values)[0])


def _json(plan: Plan, pattern: str, **values: Any) -> dict[str, Any] | None:
    try:
        return json.loads(_file(plan, pattern, **values).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


@dataclass(frozen=True)
class SoFar:
    """Where a training is that has not ended."""

    epoch: int
    """Epochs done."""
    epochs: int
    """Epochs to be done."""
    accuracy: float | None
    """Test accuracy after the last epoch, 0 to 1."""
    epsilon: float | None
    """What the steps so far cost, at the first delta of the study and for the neighbours that head the privacy table;
    None where nothing is guaranteed, or where it is not asked for."""
    left: float | None
    """Seconds to the end, by the training's own log; None if it does not tell."""
    silent: float | None = None
    """Seconds since its last word, if that is longer than two epochs and a minute: it has been stopped, or it hangs."""

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch} of {self.epochs}"]
        parts += [f"{100 * self.accuracy:.1f} %"] if self.accuracy is not None else []
        parts += [f"epsilon {self.epsilon:.3g}"] if self.epsilon is not None else []
        if self.silent is not None:
            parts.append(f"silent for {told(self.silent)}")
        elif self.left is not None:
            parts.append(f"{told(self.left)} left")
        return ", ".join(parts)


def so_far(plan: Plan, dataset: str, run: str, seed: int | str, spent: bool = True) -> SoFar | None:
    """Where a training is, by its checkpoint and its log; None if it has no checkpoint.

    Args:
        plan, dataset, run, seed: which training.
        spent: whether to account for epsilon, which takes seconds the first time, since accountants load torch.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    where = {"dataset": dataset, "run": run, "seed": seed}
    try:
        with _file(plan, CHECKPOINT, **where).open("rb") as file:  # safetensors: the length of a header, then JSON
            (length,) = struct.unpack("<Q", file.read(8))
            history = json.loads(json.loads(file.read(length))["__metadata__"]["state"])["history"]
        epoch, accuracy = len(history), history[-1]["test_accuracy"] if history else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, struct.error, MemoryError, OverflowError, AttributeError, TypeError) as error:
        raise ValueError("damaged checkpoint") from error
    training, n = plan.study.run(dataset, run).training, plan.study.facts_of(dataset).train
    delta = plan.study.dataset(dataset).privacy.deltas[0]
    epsilon = (
        None if n is None or not spent else _spent(training.model_dump_json(), training.trained_on(n), epoch, delta)
    )
    return SoFar(epoch, training.epochs, accuracy, epsilon, *_left(_file(plan, LOG, **where), time.time()))


def test_accuracy(plan: Plan, dataset: str, run: str, seed: int | str) -> float | None:
    """Test accuracy of a trained network, 0 to 1; None if there is no record of it."""
    found = _json(plan, TRAINED, dataset=dataset, run=run, seed=seed)
    return found["history"][-1]["test_accuracy"] if found else None


@cache
def _resolved(settings: str, n: int) -> Training:
    return privacy.resolve(Training.model_validate_json(settings), n)


@cache
def _spent(settings: str, n: int, epochs: int, delta: float) -> float | None:
    """Epsilon after so many epochs, as the privacy table has it at the end."""
    training = _resolved(settings, n)
    if not training.noise_multiplier:
        return None
    asked = training.mechanism(n) | {"epochs": epochs, "steps": epochs * training.steps_per_epoch(n)}
    first, *_ = bounds = privacy.BOUNDS[training.sampling]
    tightest = [bound for bound in bounds if bound.adjacency == first.adjacency][-1]
    return tightest.epsilon(training.noise_multiplier, privacy.Mechanism(**asked), delta)


def _left(log: Path, now: float) -> tuple[float | None, float | None]:
    """Seconds that a training has left by its log, and since its last word if that is too long ago."""
    try:
        found = list(EPOCH.finditer(log.read_text(encoding="utf-8", errors="replace")))
        age = max(now - log.stat().st_mtime, 0.0)
    except OSError:
        return None, None
    if not found:
        return None, None
    epoch, epochs, left = (float(part) for part in found[-1].groups())
    one = 60 * left / (epochs - epoch) if epochs > epoch else 0.0
    return max(60 * left - age, 0.0), age if age > 2 * one + 60 else None


def _training(plan: Plan, seed: int, where: dict[str, str]) -> str:
    """Of a training that is not finished: seed, and where it is."""
    try:
        found = so_far(plan, seed=seed, **where)
    except ValueError as error:
        return f"seed {seed}: {error}"
    return f"seed {seed}: {found}" if found else ""


def _epsilon(plan: Plan, where: dict[str, str]) -> float | None:
    path = _file(plan, PRIVACY, **where)
    return Given(privacy=pd.read_csv(path)).epsilons.get(where["run"]) if path.exists() else None
