"""Accuracy on corrupted test sets (Table 2): a row a corruption, a column a run, the paper's value beside each."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dprobust.corruptions import OFFICIAL
from dprobust.study import Run


def make(records: pd.DataFrame, runs: Sequence[Run], settings: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 2.

    Args:
        records: rows of metric "accuracy" with columns run, seed, corruption ("identity" is the clean set), source,
            value.
        runs: the columns.
        settings: the table's entry in the config; `paper`: run name -> corruption -> accuracy in percent, as the paper
            states it.

    Returns:
        The numbers, in percent: corruption, source, run, mean, min, max, seeds, paper. And the table to read: the mean
        over seeds, in brackets the paper's value; after the first two runs their difference in percentage points. Last
        come the averages over all corruptions and, where they are among them, over the official 15 of MNIST-C.
    """
    accuracy = records[records["metric"] == "accuracy"].pivot_table(
        index=["run", "seed"], columns="corruption", values="value"
    )
    paper = pd.DataFrame.from_dict(settings["paper"], orient="index", dtype=float)
    names = [name for name in records["corruption"].unique() if name != "identity"]
    averages = {f"average of {len(names)}": names}
    if set(OFFICIAL) < set(names):
        averages["average of the official 15"] = list(OFFICIAL)
    for name, members in averages.items():
        accuracy[name] = accuracy[members].mean(axis=1)
        if name not in paper and set(members) <= set(paper):
            paper[name] = paper[members].mean(axis=1)
    sources = records.drop_duplicates("corruption").set_index("corruption")["source"]
    data = pd.DataFrame(
        {
            "corruption": name,
            "source": sources.get(name, ""),
            "run": run.name,
            **(100 * accuracy.loc[run.name, name]).agg(["mean", "min", "max"]).to_dict(),
            "seeds": len(accuracy.loc[run.name]),
            "paper": paper.loc[run.name, name] if run.name in paper.index and name in paper else None,
        }
        for name in ("identity", *names, *averages)
        for run in runs
    )
    return data, _to_read(data, runs)


def _to_read(data: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    ours, papers = (data.pivot(index="corruption", columns="run", values=v) for v in ("mean", "paper"))
    columns = {}
    for i, run in enumerate(runs):
        title = f"σ = {run.sigma:g}, C = {run.clip:g}" if run.private else "SGD"
        columns[title] = [_pair(ours.loc[n, run.name], papers.loc[n, run.name]) for n in ours.index]
        if i == 1:
            first, second = runs[0].name, runs[1].name
            gaps = zip(ours[first] - ours[second], papers[first] - papers[second], strict=True)
            columns["difference"] = [_pair(gap, paper) for gap, paper in gaps]
    table = pd.DataFrame(columns, index=ours.index).loc[data["corruption"].unique()]
    return table.rename_axis("corruption").reset_index()


def _pair(ours: float, paper: float) -> str:
    return f"{ours:.2f}" + ("" if pd.isna(paper) else f" ({paper:.2f})")
