"""The accuracy table: what every run reaches without attack, the paper's value beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dprobust.displays.accuracy.display import Display
from dprobust.errors import UserError
from dprobust.rendering import described
from dprobust.runs import Run
from dprobust.showing import Given

LAST = ["epoch", "step", "holdout_accuracy", "clipped", "mean_norm"]
"""What is taken of the last record of a training's history, where it has it."""
OPTIONAL = ("stopped at step", "the paper's", "clipped in %", "mean gradient norm")
"""Columns that are left out where no run has anything in them."""


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The accuracy table.

    Returns:
        The numbers: dataset, run (for a pre-training ``pretraining on ...``); epochs, the most of a seed; where a run
        stops at an accuracy, stop_min and stop_max, the first and last step that a seed stopped at, and held_out, the
        mean accuracy there on the examples held out, in percent; accuracy on the test images in percent: mean, min,
        max, seeds, images, paper; and for clipped gradients, means over seeds of the last epoch: clipped, percent of
        the examples whose gradient was longer than C, and mean_norm, of the gradients. And the table to read.
    """
    rows = [
        {"dataset": t["dataset"], "run": f"pretraining on {t['public']}"}
        | _accuracy(pd.Series([100 * t["history"][-1]["test_accuracy"]]))
        | _training([t])
        for t in given.pretrained
    ]
    paper = _stated(given.paper, settings.paper)
    records = given.records["clean"]
    records = records[records["metric"] == "accuracy"]
    measured = dict(list(records.groupby(["dataset", "run"], sort=False)))
    for dataset in records["dataset"].unique():
        for run in dict.fromkeys(given.runs):
            if (dataset, run.name) in measured:
                seeds = measured[dataset, run.name]
                trained = [t for t in given.trained if (t["dataset"], t["run"]) == (dataset, run.base)]
                row = {"dataset": dataset, "run": run.name} | _accuracy(100 * seeds["value"])
                row |= {"images": int(seeds["n"].max()), "paper": paper.get((dataset, run.name))}
                rows.append(row | _training(trained))
    columns = [
        "dataset",
        "run",
        "epochs",
        "stop_min",
        "stop_max",
        "held_out",
        "mean",
        "min",
        "max",
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


def _accuracy(percent: pd.Series) -> dict[str, Any]:
    return percent.agg(["mean", "min", "max"]).to_dict() | {"seeds": len(percent)}


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
    rows = []
    for row in data.itertuples():
        known = runs.get(row.run)
        stops = dict.fromkeys(f"{step:g}" for step in (row.stop_min, row.stop_max) if step == step)
        rows.append(
            {"dataset": row.dataset}
            | (described(known) if known else {"algorithm": row.run, "setting": ""})
            | {
                "epochs": "" if pd.isna(row.epochs) else f"{row.epochs:g}",
                "stopped at step": " to ".join(stops),
                "accuracy in %": f"{row.mean:.2f}",
                "over seeds": f"{row.min:.2f} to {row.max:.2f}" if row.seeds > 1 else "1 seed",
                "the paper's": "" if pd.isna(row.paper) else f"{row.paper:.2f}",
                "clipped in %": "" if pd.isna(row.clipped) else f"{row.clipped:.1f}",
                "mean gradient norm": "" if pd.isna(row.mean_norm) else f"{row.mean_norm:.3g}",
            }
        )
    table = pd.DataFrame(rows)
    return table[[column for column in table if column not in OPTIONAL or (table[column] != "").any()]]
