"""The accuracy table: what every run reaches without attack, the paper's value beside it."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dprobust.displays.accuracy.display import Display
from dprobust.errors import UserError
from dprobust.rendering import covers, described, interval
from dprobust.runs import Run
from dprobust.showing import Given
from dprobust.statistics import summary

LAST = ["epoch", "step", "holdout_accuracy", "clipped", "mean_norm"]
"""What is taken of the last record of a training's history, where it has it."""
OPTIONAL = ("stopped at step", "the paper's", "clipped in %", "mean gradient norm")
"""Columns that are left out where no run has anything in them."""


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The accuracy table.

    Returns:
        The numbers: dataset, run (for a pre-training ``pretraining on ...``); epochs, the most of a seed; where a run
        stops at an accuracy, stop_min and stop_max, the first and last step that a seed stopped at (each is exact), and
        held_out, the mean accuracy there on the examples held out, in percent; accuracy on the test images in percent:
        mean, low and high (95 % interval over seeds and images, `dprobust.statistics`; of a pre-training, which keeps
        no images, none), seeds, images, paper; and for clipped gradients, means over seeds of the last epoch: clipped,
        percent of the examples whose gradient was longer than C, and mean_norm, of the gradients. And the table to
        read.
    """
    rows = [
        {"dataset": t["dataset"], "run": f"pretraining on {t['public']}"}
        | {"mean": 100 * t["history"][-1]["test_accuracy"], "seeds": 1}
        | _training([t])
        for t in given.pretrained
    ]
    paper = _stated(given.paper, settings.paper)
    for dataset in dict.fromkeys(dataset for _, dataset, _, _ in given.arrays):
        measured = given.outcomes("clean", right, dataset)
        for run in dict.fromkeys(given.runs):
            if (run.name, "right") in measured:
                values = measured[run.name, "right"]
                trained = [t for t in given.trained if (t["dataset"], t["run"]) == (dataset, run.base)]
                row = {"dataset": dataset, "run": run.name} | summary(100 * values, within=(0, 100))
                row |= {"images": values.shape[1], "paper": paper.get((dataset, run.name))}
                rows.append(row | _training(trained))
    columns = [
        "dataset",
        "run",
        "epochs",
        "stop_min",
        "stop_max",
        "held_out",
        "mean",
        "low",
        "high",
        "seeds",
        "images",
        "paper",
    ]
    data = pd.DataFrame(rows).reindex(columns=[*columns, "clipped", "mean_norm"])
    data = data.sort_values("dataset", kind="stable", ignore_index=True)
    return data, _to_read(data, {run.name: run for run in given.runs})


def _stated(paper: pd.DataFrame | None, name: str | None) -> dict[tuple[str, str], float]:
    if paper is None:
        return {}
    if not {"dataset", "run", "accuracy"} <= set(paper.columns):
        raise UserError(f"{name}: has columns {', '.join(paper.columns)}; needs dataset, run, accuracy")
    return paper.set_index(["dataset", "run"])["accuracy"].to_dict()


def right(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """Of "right": whether each image is, bool (images,)."""
    return {"right": arrays["logits"].argmax(axis=1) == arrays["label"]}


def _training(trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What there is to say of the trainings of a run, one a seed."""
    if not trained:
        return {}
    last = pd.DataFrame([t["history"][-1] for t in trained]).reindex(columns=LAST).astype(float)
    return {
        "epochs": int(last["epoch"].max()),
        "stop_min": last["step"].min(),
        "stop_max": last["step"].max(),
        "held_out": 100 * last["holdout_accuracy"].mean(),
        "clipped": 100 * last["clipped"].mean(),
        "mean_norm": last["mean_norm"].mean(),
    }


def _to_read(data: pd.DataFrame, runs: Mapping[str, Run]) -> pd.DataFrame:
    covered, rows = covers(data["seeds"].max()), []
    for row in data.itertuples():
        known = runs.get(row.run)
        stops = dict.fromkeys(f"{step:g}" for step in (row.stop_min, row.stop_max) if step == step)
        rows.append(
            {"dataset": row.dataset}
            | (described(known) if known else {"algorithm": row.run, "setting": ""})
            | {
                "epochs": "" if pd.isna(row.epochs) else f"{row.epochs:g}",
                "stopped at step": " to ".join(stops),
                f"accuracy in % [{covered}]": interval(row.mean, row.low, row.high),
                "seeds": f"{row.seeds:g}",
                "the paper's": "" if pd.isna(row.paper) else f"{row.paper:.2f}",
                "clipped in %": "" if pd.isna(row.clipped) else f"{row.clipped:.1f}",
                "mean gradient norm": "" if pd.isna(row.mean_norm) else f"{row.mean_norm:.3g}",
            }
        )
    table = pd.DataFrame(rows)
    return table[[column for column in table if column not in OPTIONAL or (table[column] != "").any()]]
