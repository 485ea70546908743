"""Accuracy under PGD, ours beside the paper's (Table 1)."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from dprobust.metrics.pgd.display import Display
from dprobust.paper import Paper, Stated
from dprobust.rendering import covers, headings, interval
from dprobust.showing import Given
from dprobust.statistics import summary

LOSSES = {"ce": "cross-entropy", "ce_stable": "stable cross-entropy", "margin": "margin loss", "worst": "worst case"}


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each eps and number of steps, columns for each run and for the first run less each other one.

    Of the records: the arrays loss, eps, steps, predicted, clean and label.

    Returns:
        The numbers in percent: loss, eps, steps, run (or "a - b" for a difference, images and seeds paired), mean, low,
        high (95 % interval over seeds and images, `dprobust.statistics`), seeds, paper, paper_is
        (`dprobust.paper.Stated.origin`); steps 0 is without attack. And the table to read.
    """
    losses, runs = settings.losses, [run.name for run in given.runs]
    titles = {name: title + given.mark(name) for name, title in headings(given.runs).items()}
    first, differences = runs[0], {f"{runs[0]} - {other}": other for other in runs[1:]}
    several = len(runs) > 2 or "difference" in titles.values()
    for difference, other in differences.items():
        titles[difference] = f"{titles[first]} − {titles[other]}" if several else "difference"
    paper = Paper(given.paper, settings.paper or "paper")
    values = given.outcomes("pgd", right_after)
    rows = []
    for loss, eps, steps in dict.fromkeys(key for _, key in values if key[0] in losses):
        of_run = {run: 100 * values[run, (loss, eps, steps)] for run in runs}
        for column in titles:
            if column in differences:
                found = summary(of_run[first], of_run[differences[column]])
                stated = paper.difference(f"{eps:g}/{steps}", first, differences[column])
            else:
                found, stated = summary(of_run[column], within=(0, 100)), paper.value(f"{eps:g}/{steps}", column)
            row = {"loss": loss, "eps": eps, "steps": steps, "run": column} | found
            rows.append(row | (stated if loss == losses[0] else Stated())._asdict())
    data = pd.DataFrame(rows).rename(columns={"value": "paper", "origin": "paper_is"})
    return data, _to_read(data, losses, titles)


def right_after(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """(loss, eps, steps) -> whether each image is right, bool (images,); of several losses also "worst", under all."""
    label, losses = arrays["label"], arrays["loss"].tolist()
    clean, right = arrays["clean"] == label, arrays["predicted"] == label
    found: dict[Hashable, np.ndarray] = {}
    worst = {"worst": right.all(0)} if len(losses) > 1 else {}
    for loss, of_loss in (dict(zip(losses, right, strict=True)) | worst).items():
        found[loss, 0.0, 0] = clean
        for eps, of_eps in zip(arrays["eps"].tolist(), of_loss, strict=True):
            found |= {(loss, eps, k): now for k, now in zip(arrays["steps"].tolist(), of_eps, strict=True)}
    return found


def _to_read(data: pd.DataFrame, losses: Sequence[str], titles: Mapping[str, str]) -> pd.DataFrame:
    with_paper = set(data[data["paper_is"] != ""]["run"])
    covered = covers(data["seeds"].max())
    rows = []
    for (eps, steps), cells in data.groupby(["eps", "steps"]):
        cells = cells.set_index(["run", "loss"])
        row = {("", "eps"): f"{eps:g}", ("", "steps"): str(steps)}
        for run, title in titles.items():
            if run in with_paper:
                row[title, "paper"] = str(Stated(*cells.loc[(run, losses[0]), ["paper", "paper_is"]]))
            row |= {
                (title, f"{LOSSES[loss]} [{covered}]"): interval(*cells.loc[(run, loss), ["mean", "low", "high"]])
                for loss in losses
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1)
