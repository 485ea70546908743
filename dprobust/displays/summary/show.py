"""Is my private model fragile? A row a model, from the records of several metrics."""

import math
from collections.abc import Sequence

import pandas as pd

from dprobust.displays.summary.display import Display
from dprobust.recipe import Statement
from dprobust.rendering import headings, less, spread
from dprobust.runs import Run
from dprobust.showing import Given

DIGITS = {"median linf": 4, "median l2": 3}
NAMES = {
    "clean": "accuracy in %",
    "fgsm": "FGSM, eps = {eps:g}",
    "pgd": "PGD, eps = {eps:g}",
    "median linf": "median l∞ distance",
    "median l2": "median l2 distance",
    "saturated": "p = 1 in %",
}


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary.

    Returns:
        The numbers: run, quantity, eps, mean, std, min, max, seeds, and difference, the mean (over the seeds) of the
        run less the first run. Quantities: clean, fgsm and pgd, accuracies in percent, under attack in the worst case
        over the losses measured, image by image, PGD after the most steps measured; median linf and median l2, of the
        distance by Eq. 4 of correctly classified images; saturated, percent of the images whose true class has a
        float32 softmax of exactly 1. And the table to read, differences in brackets.
    """
    values = _values(given, settings.eps)
    first = given.runs[0].name
    rows = []
    for (quantity, eps), group in values.groupby(["quantity", "eps"], sort=False, dropna=False):
        of_run = {run: seeds.set_index("seed")["value"] for run, seeds in group.groupby("run")}
        for run in given.runs:
            seeds = of_run[run.name]
            row = {"run": run.name, "quantity": quantity, "eps": eps}
            row |= seeds.agg(["mean", "std", "min", "max"]).to_dict() | {"seeds": len(seeds)}
            rows.append(row | {"difference": less(seeds, of_run[first]).mean()})
    data = pd.DataFrame(rows)
    epsilons = {run.name: _epsilon(run, given.epsilons) for run in given.runs}
    return data, _to_read(data, headings(given.runs), epsilons)


def _values(given: Given, eps: Sequence[float]) -> pd.DataFrame:
    """Columns run, seed, quantity, eps, value, in the order of the table's columns."""
    clean = given.records["clean"]
    parts = [
        clean[clean["metric"] == metric].assign(quantity=quantity, eps=None)
        for metric, quantity in (("accuracy", "clean"), ("p_true_is_1", "saturated"))
    ]
    for metric in ("fgsm", "pgd"):
        records = given.records[metric]
        records = records[(records["metric"] == "accuracy") & records["eps"].isin(eps)]
        worst = "worst" if "worst" in set(records["loss"]) else records["loss"].iloc[0]  # of one loss it is that one
        parts.append(records[records["loss"] == worst].assign(quantity=metric))
    parts[-1] = parts[-1][parts[-1]["steps"] == parts[-1]["steps"].max()]
    percents = pd.concat(parts)
    percents = percents.assign(value=100 * percents["value"])

    distances = given.records["distances"]
    medians = distances[distances["correct"].astype(bool)].groupby(["run", "seed"])[["linf", "l2"]].median()
    medians = medians.reset_index().melt(["run", "seed"], var_name="quantity")
    medians = medians.assign(quantity="median " + medians["quantity"], eps=None)
    values = pd.concat([percents, medians])[["run", "seed", "quantity", "eps", "value"]]
    return values.sort_values(
        "quantity", key=lambda names: names.map(list(NAMES).index), kind="stable", ignore_index=True
    )


def _epsilon(run: Run, accounted: dict[str, float]) -> str:
    if run.algorithm == "weights":
        if isinstance(run.privacy, Statement):
            return f"{run.privacy.epsilon:.3g} (stated, δ = {run.privacy.delta:g})"
        return run.privacy if run.privacy == "not known" else "∞"
    if not run.private:
        return "∞"
    value = accounted[run.name if run.name in accounted else run.base]
    return "∞" if math.isinf(value) else f"{value:.3g}"


def _to_read(data: pd.DataFrame, titles: dict[str, str], epsilons: dict[str, str]) -> pd.DataFrame:
    rows = []
    for i, (run, title) in enumerate(titles.items()):
        row = {"model": title, "ε": epsilons[run]}
        for item in data[data["run"] == run].itertuples():
            digits = DIGITS.get(item.quantity, 2)
            difference = "" if i == 0 else f" ({item.difference:+.{digits}f})".replace("-", "−")
            row[NAMES[item.quantity].format(eps=item.eps)] = spread(item.mean, item.std, digits) + difference
        rows.append(row)
    return pd.DataFrame(rows)
