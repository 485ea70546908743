"""Is my private model fragile? A row a model, from the records of several metrics."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from dprobust.displays.accuracy.show import right
from dprobust.displays.summary.display import Display
from dprobust.metrics.fgsm.show import right_under
from dprobust.metrics.pgd.show import right_after
from dprobust.recipe import Statement
from dprobust.rendering import covers, headings, interval
from dprobust.runs import Run
from dprobust.showing import Given
from dprobust.statistics import summary

DIGITS = {"median linf": 4, "median l2": 3}
DIFFERENCE = {"mean": "", "low": "_low", "high": "_high"}
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

    Of the records: the arrays of clean (logits, label), fgsm (loss, eps, predicted, saturated, label), pgd (loss, eps,
    steps, predicted, clean, label) and distances (norm, distance, correct).

    Returns:
        The numbers: run, quantity, eps, mean, low, high (95 % interval over seeds and images, `dprobust.statistics`),
        seeds, and difference, difference_low and difference_high, of the run less the first, images and seeds paired.
        Quantities: clean, fgsm and pgd, accuracies in percent, under attack in the worst case
        over the losses measured, image by image, PGD after the most steps measured; median linf and median l2, of the
        distance by Eq. 4 of correctly classified images; saturated, percent of the images whose true class has a
        float32 softmax of exactly 1. And the table to read, differences in brackets.
    """
    first = given.runs[0].name
    rows = []
    for quantity, eps, values in _values(given, settings.eps):
        median = quantity.startswith("median")
        how = {"reduce": "median" if median else "mean", "within": (0, math.inf) if median else (0, 100)}
        for run in given.runs:
            row = {"run": run.name, "quantity": quantity, "eps": eps} | summary(values[run.name], **how)
            less = summary(values[run.name], values[first], reduce=how["reduce"])
            rows.append(row | {f"difference{end}": less[name] for name, end in DIFFERENCE.items()})
    data = pd.DataFrame(rows)
    epsilons = {run.name: _epsilon(run, given.epsilons) for run in given.runs}
    titles = {name: title + given.mark(name) for name, title in headings(given.runs).items()}
    return data, _to_read(data, titles, epsilons)


def _values(given: Given, eps: Sequence[float]) -> Iterator[tuple[str, float, dict[str, np.ndarray]]]:
    """Quantity, eps (nan for none), and of each run the values of the images (seeds, images), in the order of the
    table's columns."""
    runs = [run.name for run in given.runs]
    clean = given.outcomes("clean", right)
    yield "clean", math.nan, {run: 100 * clean[run, "right"] for run in runs}

    def under_fgsm(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
        found = right_under(arrays)["worst"]  # of one loss it is that one
        radii = arrays["eps"].tolist()
        return {radius: found[radii.index(radius)] for radius in eps} | {"saturated": arrays["saturated"][0]}

    def under_pgd(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
        found, losses = right_after(arrays), arrays["loss"].tolist()
        worst = "worst" if len(losses) > 1 else losses[0]
        return {radius: found[worst, radius, arrays["steps"].tolist()[-1]] for radius in eps}

    fgsm, pgd = given.outcomes("fgsm", under_fgsm), given.outcomes("pgd", under_pgd)
    for metric, found in (("fgsm", fgsm), ("pgd", pgd)):
        for radius in eps:
            yield metric, radius, {run: 100 * found[run, radius] for run in runs}

    def of_right(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
        distance = np.where(arrays["correct"], arrays["distance"].astype(np.float64), np.nan)
        return dict(zip(arrays["norm"].tolist(), distance, strict=True))

    distances = given.outcomes("distances", of_right)
    for norm in ("linf", "l2"):
        yield f"median {norm}", math.nan, {run: distances[run, norm] for run in runs}
    yield "saturated", math.nan, {run: 100 * fgsm[run, "saturated"] for run in runs}


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
    covered, rows = covers(data["seeds"].max()), []
    for i, (run, title) in enumerate(titles.items()):
        row = {"model": title, "ε": epsilons[run]}
        for item in data[data["run"] == run].itertuples():
            digits = DIGITS.get(item.quantity, 2)
            text = interval(item.mean, item.low, item.high, digits)
            if i:
                ends = item.difference, item.difference_low, item.difference_high
                text += f" ({interval(*ends, digits, '+')})"
            row[f"{NAMES[item.quantity].format(eps=item.eps)} [{covered}]"] = text
        rows.append(row)
    return pd.DataFrame(rows)
