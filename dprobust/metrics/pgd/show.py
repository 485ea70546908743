"""Accuracy under PGD, ours beside the paper's (Table 1)."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dprobust.metrics.pgd.display import Display
from dprobust.paper import Paper, Stated
from dprobust.rendering import headings, less, spread
from dprobust.showing import Given

LOSSES = {"ce": "cross-entropy", "ce_stable": "stable cross-entropy", "margin": "margin loss", "worst": "worst case"}


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each eps and number of steps, columns for each run and for the first run less each other one.

    Returns:
        The numbers in percent: loss, eps, steps, run (or "a - b" for a difference, taken seed by seed), mean, std, min,
        max, seeds, paper, paper_is (`dprobust.paper.Stated.origin`); steps 0 is without attack. And the table to read:
        means and, with several seeds, their standard deviation.
    """
    losses, runs = settings.losses, [run.name for run in given.runs]
    titles = headings(given.runs)
    first, differences = runs[0], {f"{runs[0]} - {other}": other for other in runs[1:]}
    several = len(runs) > 2 or "difference" in titles.values()
    for difference, other in differences.items():
        titles[difference] = f"{titles[first]} − {titles[other]}" if several else "difference"
    paper = Paper(given.paper, settings.paper or "paper")
    records = given.records["pgd"]
    records = records[(records["metric"] == "accuracy") & records["loss"].isin(losses)]
    by = ["loss", "eps", "steps"]
    values = {key: 100 * group.set_index("seed")["value"] for key, group in records.groupby([*by, "run"])}
    rows = []
    for key in records[by].drop_duplicates().itertuples(index=False, name=None):
        loss, eps, steps = key
        for column in titles:
            if column in differences:
                seeds = less(values[*key, first], values[*key, differences[column]])
                stated = paper.difference(f"{eps:g}/{steps}", first, differences[column])
            else:
                seeds, stated = values[*key, column], paper.value(f"{eps:g}/{steps}", column)
            row = {"loss": loss, "eps": eps, "steps": steps, "run": column}
            row |= seeds.agg(["mean", "std", "min", "max"]).to_dict() | {"seeds": len(seeds)}
            rows.append(row | (stated if loss == losses[0] else Stated())._asdict())
    data = pd.DataFrame(rows).rename(columns={"value": "paper", "origin": "paper_is"})
    return data, _to_read(data, losses, titles)


def _to_read(data: pd.DataFrame, losses: Sequence[str], titles: Mapping[str, str]) -> pd.DataFrame:
    with_paper = set(data[data["paper_is"] != ""]["run"])
    rows = []
    for (eps, steps), cells in data.groupby(["eps", "steps"]):
        cells = cells.set_index(["run", "loss"])
        row = {("", "eps"): f"{eps:g}", ("", "steps"): str(steps)}
        for run, title in titles.items():
            if run in with_paper:
                row[title, "paper"] = str(Stated(*cells.loc[(run, losses[0]), ["paper", "paper_is"]]))
            row |= {(title, LOSSES[loss]): spread(*cells.loc[(run, loss), ["mean", "std"]]) for loss in losses}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1)
