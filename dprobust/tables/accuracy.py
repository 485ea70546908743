"""The accuracy table: what every run reaches without attack, the paper's value beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dprobust.study import Run


def make(
    trained: Sequence[Mapping[str, Any]],
    pretrained: Sequence[Mapping[str, Any]],
    paper: Mapping[tuple[str, str], float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The accuracy table.

    Args:
        trained: of each training: dataset, run, seed and history (`dprobust.training.train`).
        pretrained: of each pre-training: dataset (whose networks got the convolutions), public (the dataset trained
            on), history.
        paper: (dataset, run) -> accuracy in percent, as the paper states it.

    Returns:
        The numbers: dataset, run (for a pre-training `pretraining on ...`), epochs, mean, min, max of the accuracy on
        the test images after the last epoch in percent, seeds, paper, and for DP-SGD, means over seeds of the last
        epoch: clipped, percent of the examples whose gradient was longer than C, and mean_norm, of the gradients.
        And the table to read.
    """
    names = [(t["dataset"], f"pretraining on {t['public']}") for t in pretrained]
    names += [(t["dataset"], t["run"]) for t in trained]
    columns = ["epoch", "test_accuracy", "clipped", "mean_norm"]
    last = pd.DataFrame([t["history"][-1] for t in (*pretrained, *trained)]).reindex(columns=columns)
    rows = []
    for (dataset, run), group in last.groupby(pd.MultiIndex.from_tuples(names), sort=False):
        mean, low, high = (100 * group["test_accuracy"]).agg(["mean", "min", "max"])
        row = {
            "dataset": dataset,
            "run": run,
            "epochs": int(group["epoch"].max()),
            "mean": mean,
            "min": low,
            "max": high,
        }
        row |= {"seeds": len(group), "paper": paper.get((dataset, run))}
        rows.append(row | {"clipped": 100 * group["clipped"].mean(), "mean_norm": group["mean_norm"].mean()})
    data = pd.DataFrame(rows).sort_values("dataset", kind="stable", ignore_index=True)
    return data, _to_read(data)


def _to_read(data: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in data.itertuples():
        run = None if row.run.startswith("pretraining") else Run.parse(row.run)
        private = run is not None and run.private
        rows.append(
            {
                "dataset": row.dataset,
                "run": row.run if run is None else "DP-SGD" if private else "SGD",
                "σ": f"{run.sigma:g}" if private else "",
                "C": f"{run.clip:g}" + (", noise σ" if run.noise == "sigma" else "") if private else "",
                "epochs": str(row.epochs),
                "accuracy in %": f"{row.mean:.2f}",
                "over seeds": f"{row.min:.2f} to {row.max:.2f}" if row.seeds > 1 else "1 seed",
                "the paper's": "" if pd.isna(row.paper) else f"{row.paper:g}",
                "clipped in %": f"{row.clipped:.1f}" if private else "",
                "mean gradient norm": f"{row.mean_norm:.3g}" if private else "",
            }
        )
    return pd.DataFrame(rows)
