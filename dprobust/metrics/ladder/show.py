"""What each attack of the ladder leaves: a row an eps and attack, a column a run, and where the order turns round."""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from dprobust.metrics.ladder.display import Display
from dprobust.rendering import covers, headings, interval
from dprobust.showing import Given
from dprobust.statistics import summary

NAMES = {
    "clean": "no attack",
    "fgsm": "FGSM",
    "pgd": "PGD, cross-entropy",
    "pgd_margin": "PGD, margin",
    "pgd_targeted": "PGD, margin to each class",
    "apgd_ce": "APGD, cross-entropy",
    "apgd_ce_stable": "APGD, stable cross-entropy",
    "apgd_targeted": "APGD, targeted",
    "square": "Square Attack",
}
TURNED = "turned"
ALONE = {"mean": "", "low": "_low", "high": "_high"}


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy left after each attack and all above it in the table.

    Of the records: the arrays rung, norm, eps, broken_by and, where they are there, alone_index and alone.

    Returns:
        The numbers: norm, eps, rung, run (or "a - b" for a difference, images and seeds paired), mean, low, high
        (accuracy in percent, after this rung, with its 95 % interval over seeds and images, `dprobust.statistics`),
        seeds, turned (of a difference: its sign is the other one than without attack), alone, alone_low and alone_high
        (percent of the images broken in the end that this rung breaks by itself; nan if not measured). And the table to
        read.
    """
    runs = [run.name for run in given.runs]
    titles = {name: title + given.mark(name) for name, title in headings(given.runs).items()}
    first, differences = runs[0], {f"{runs[0]} - {other}": other for other in runs[1:]}
    several = len(runs) > 2 or "difference" in titles.values()
    for difference, other in differences.items():
        titles[difference] = f"{titles[first]} − {titles[other]}" if several else "difference"
    left, alone = given.outcomes("ladder", left_after), given.outcomes("ladder", broken_alone)
    by = ["norm", "eps", "rung"]
    rows, clean = [], {}
    for key in dict.fromkeys(key for _, key in left):
        for column in titles:
            if column in differences:
                found = summary(100 * left[first, key], 100 * left[differences[column], key])
            else:
                found = summary(100 * left[column, key], within=(0, 100))
            row = dict(zip([*by, "run"], [*key, column], strict=True)) | found
            if abs(row["mean"]) < 1e-9:
                row["mean"] = 0.0  # equal accuracies differ by the last bit of a subtraction, which has a sign
            # Of each eps the rung without attack is the first.
            before = clean.setdefault((*key[:2], column), row["mean"])
            row["turned"] = column in differences and row["mean"] * before < 0
            by_itself = alone.get((column, key), np.full((1, 1), np.nan))
            told = summary(100 * by_itself, within=(0, 100)) if not np.isnan(by_itself).all(axis=1).any() else {}
            row |= {f"alone{end}": told.get(name, np.nan) for name, end in ALONE.items()}
            rows.append(row)
    data = pd.DataFrame(rows)
    return data, _to_read(data, titles, list(differences), settings.alone)


def left_after(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """(norm, eps, rung) -> what the ladder up to the rung leaves right, bool (images,)."""
    (norm,) = arrays["norm"].tolist()
    return {
        (norm, eps, rung): (broken < 0) | (broken > place)
        for eps, broken in zip(arrays["eps"].tolist(), arrays["broken_by"], strict=True)
        for place, rung in enumerate(arrays["rung"].tolist())
    }


def broken_alone(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """(norm, eps, rung) -> of the images that are broken in the end, what the rung breaks by itself, float64 (images,);
    nan for the others."""
    if "alone" not in arrays:
        return {}
    (norm,), rungs = arrays["norm"].tolist(), arrays["rung"].tolist()
    at = np.isin(arrays["index"], arrays["alone_index"])
    return {
        (norm, eps, rung): np.where(broken[at] > 0, own, np.nan)
        for eps, broken, breaks in zip(arrays["eps"].tolist(), arrays["broken_by"], arrays["alone"], strict=True)
        for rung, own in zip(rungs[1:], breaks[1:], strict=True)
    }


def _to_read(data: pd.DataFrame, titles: dict[str, str], differences: list[str], alone: bool) -> pd.DataFrame:
    alone = alone and data["alone"].notna().any()
    covered = covers(data["seeds"].max())
    rows = []
    for (norm, eps, rung), cells in data.groupby(["norm", "eps", "rung"], sort=False):
        cells = cells.set_index("run")
        row = {("", "eps"): f"{eps:g}{'' if norm == 'linf' else f' ({norm})'}", ("", "after"): NAMES.get(rung, rung)}
        for run, title in titles.items():
            cell = cells.loc[run]
            mark = f" ({TURNED})" if cell["turned"] else ""
            row[title, f"left [{covered}]"] = interval(*cell[["mean", "low", "high"]]) + mark
            if alone and run not in differences:
                row[title, f"alone [{covered}]"] = interval(*cell[["alone", "alone_low", "alone_high"]], digits=0)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1)
