"""Accuracy under PGD, ours beside the paper's (Table 1)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dprobust.plots.style import label
from dprobust.study import Run

LOSS_NAMES = {"ce": "cross-entropy", "ce_stable": "stable cross-entropy", "margin": "margin loss"}


def make(records: pd.DataFrame, runs: Sequence[Run], settings: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each eps and number of steps, columns for each run and for the first run less each other one.

    Args:
        records: rows of metric "accuracy" with columns run, seed, loss, eps, steps, value; steps 0 is without attack.
        runs: in the order of the columns.
        settings: the table's entry in the config: `losses`, a column each; `paper`: run name -> "eps/steps" ->
            accuracy in percent, as the paper states it, shown before the first loss.

    Returns:
        The numbers in percent: loss, eps, steps, run (or "a - b" for a difference), mean, std, min, max, seeds, paper;
        and the table for readers: means and, with several seeds, their standard deviation.
    """
    losses, (first, *others) = settings["losses"], [run.name for run in runs]
    shown = records[(records["metric"] == "accuracy") & records["loss"].isin(losses)]
    percent = 100 * shown.pivot_table(index=["loss", "eps", "steps", "seed"], columns="run", values="value")
    percent = percent[[first, *others]]
    stated = pd.DataFrame(settings["paper"], dtype=float).reindex(columns=percent.columns)
    headings = {run.name: label(run) for run in runs}
    for other in others:
        difference = f"{first} - {other}"
        headings[difference] = "difference" if len(others) == 1 else f"{headings[first]} − {headings[other]}"
        for table in (percent, stated):
            table[difference] = table[first] - table[other]

    by = ["loss", "eps", "steps", "run"]
    values = percent.melt(ignore_index=False).reset_index().groupby(by, sort=False)["value"]
    data = values.agg(["mean", "std", "min", "max", "count"]).rename(columns={"count": "seeds"}).reset_index()
    paper = stated.stack().to_dict()
    keys = ((f"{row.eps:g}/{row.steps}", row.run) for row in data.itertuples())
    data["paper"] = pd.Series(map(paper.get, keys), dtype=float).where(data["loss"] == losses[0])
    return data, _for_readers(data, losses, headings)


def _for_readers(data: pd.DataFrame, losses: Sequence[str], headings: Mapping[str, str]) -> pd.DataFrame:
    several = (data["seeds"] > 1).any()
    has_paper = set(data[data["paper"].notna()]["run"])
    rows = []
    for (eps, steps), cells in data.groupby(["eps", "steps"]):
        cells = cells.set_index(["run", "loss"])
        row = {("", "eps"): f"{eps:g}", ("", "steps"): str(steps)}
        for run, heading in headings.items():
            for loss in losses:
                cell = cells.loc[(run, loss)]
                if loss == losses[0] and run in has_paper:
                    row[heading, "paper"] = "" if math.isnan(cell["paper"]) else f"{cell['paper']:.2f}"
                row[heading, LOSS_NAMES[loss]] = f"{cell['mean']:.2f}" + (f" ± {cell['std']:.2f}" if several else "")
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1)
