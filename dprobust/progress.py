"""How far a study is, from the files in its results folder. Needs no torch."""

import json
import struct
from pathlib import Path
from typing import Any

import pandas as pd

from dprobust.plan import MODEL, PRIVACY, RECORD, TRAINED, Plan
from dprobust.showing import Given

CHECKPOINT = MODEL.replace("model.safetensors", "checkpoint.safetensors")


def progress(plan: Plan) -> pd.DataFrame:
    """What is trained and measured of each run.

    Whether a file is still what the config and the code ask for only a dry run tells (``snakemake -n``).

    Returns:
        A row a run: dataset, run, seeds (how many there are to be), trained (how many are; of given weights none are to
        be), training (of each unfinished training its seed, epoch and test accuracy so far), accuracy (mean test
        accuracy of the trained, 0 to 1), epsilon (`dprobust.showing.Given.epsilons`), measured and
        to_measure (records there, and to be), missing (metrics that lack a record).
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


def _training(plan: Plan, seed: int, where: dict[str, str]) -> str:
    """Of a training that is not finished: seed, epoch and accuracy by its checkpoint."""
    path = _file(plan, CHECKPOINT, seed=seed, **where)
    try:
        with path.open("rb") as file:  # the header of safetensors: its length, then JSON
            (length,) = struct.unpack("<Q", file.read(8))
            history = json.loads(json.loads(file.read(length))["__metadata__"]["state"])["history"]
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, struct.error, MemoryError, OverflowError):
        return f"seed {seed}: damaged checkpoint"
    accuracy = f", {100 * history[-1]['test_accuracy']:.1f} %" if history else ""
    return f"seed {seed}: epoch {len(history)}{accuracy}"


def _epsilon(plan: Plan, where: dict[str, str]) -> float | None:
    path = _file(plan, PRIVACY, **where)
    return Given(privacy=pd.read_csv(path)).epsilons.get(where["run"]) if path.exists() else None
