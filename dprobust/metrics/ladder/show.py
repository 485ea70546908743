"""What each attack of the ladder leaves: a row an eps and attack, a column a run, and where the order turns round."""

import numpy as np
import pandas as pd

from dprobust.metrics.ladder.display import Display
from dprobust.rendering import headings, less, spread
from dprobust.showing import Given

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


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy left after each attack and all above it in the table.

    Returns:
        The numbers: norm, eps, rung, run (or "a - b" for a difference, taken seed by seed), mean, std, min, max
        (accuracy in percent, after this rung), seeds, turned (of a difference: its sign is the other one than without
        attack), alone (percent of the images broken in the end that this rung breaks by itself, mean over seeds; nan if
        not measured). And the table to read.
    """
    runs, titles = [run.name for run in given.runs], headings(given.runs)
    first, differences = runs[0], {f"{runs[0]} - {other}": other for other in runs[1:]}
    several = len(runs) > 2 or "difference" in titles.values()
    for difference, other in differences.items():
        titles[difference] = f"{titles[first]} − {titles[other]}" if several else "difference"
    records = given.records["ladder"]
    left, alone = (_by_run(records, metric) for metric in ("accuracy", "alone"))
    by = ["norm", "eps", "rung"]
    rows, clean = [], {}
    for key in records[records["metric"] == "accuracy"][by].drop_duplicates().itertuples(index=False, name=None):
        for column in titles:
            if column in differences:
                seeds = less(left[*key, first], left[*key, differences[column]])
            else:
                seeds = left[*key, column]
            row = dict(zip([*by, "run"], [*key, column], strict=True))
            row |= seeds.agg(["mean", "std", "min", "max"]).to_dict() | {"seeds": len(seeds)}
            if abs(row["mean"]) < 1e-9:
                row["mean"] = 0.0  # equal accuracies differ by the last bit of a subtraction, which has a sign
            # Of each eps the rung without attack is the first.
            before = clean.setdefault((*key[:2], column), row["mean"])
            row["turned"] = column in differences and row["mean"] * before < 0
            row["alone"] = alone[*key, column].mean() if (*key, column) in alone else np.nan
            rows.append(row)
    data = pd.DataFrame(rows)
    return data, _to_read(data, titles, list(differences), settings.alone)


def _by_run(records: pd.DataFrame, metric: str) -> dict[tuple, pd.Series]:
    """(norm, eps, rung, run) -> percent by seed."""
    groups = records[records["metric"] == metric].groupby(["norm", "eps", "rung", "run"])
    return {key: 100 * group.set_index("seed")["value"] for key, group in groups}


def _to_read(data: pd.DataFrame, titles: dict[str, str], differences: list[str], alone: bool) -> pd.DataFrame:
    alone = alone and data["alone"].notna().any()
    rows = []
    for (norm, eps, rung), cells in data.groupby(["norm", "eps", "rung"], sort=False):
        cells = cells.set_index("run")
        row = {("", "eps"): f"{eps:g}{'' if norm == 'linf' else f' ({norm})'}", ("", "after"): NAMES.get(rung, rung)}
        for run, title in titles.items():
            cell = cells.loc[run]
            mark = f" ({TURNED})" if cell["turned"] else ""
            row[title, "left"] = spread(cell["mean"], cell["std"]) + mark
            if alone and run not in differences:
                row[title, "alone"] = "" if pd.isna(cell["alone"]) else f"{cell['alone']:.0f}"
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.set_axis(pd.MultiIndex.from_tuples(table.columns), axis=1)
