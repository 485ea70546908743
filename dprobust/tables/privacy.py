"""The privacy table: epsilon of every run."""

import math

import pandas as pd

from dprobust.study import Run

ACCOUNTANT_NAMES = {"rdp": "RDP", "prv": "PRV", "gdp": "GDP bound", "none": ""}


def make(records: pd.DataFrame) -> pd.DataFrame:
    """The privacy table for readers: a row a run, epsilon of each accountant at each delta.

    Args:
        records: privacy records (`dprobust.privacy.account`) with columns dataset, run, sampling, noise_multiplier,
            sample_rate, steps, delta, accountant, epsilon.
    """
    rows = []
    for (dataset, name), group in records.groupby(["dataset", "run"], sort=False):
        run, first = Run.parse(name), group.iloc[0]
        row = {
            "dataset": dataset,
            "run": "DP-SGD" if run.private else "SGD",
            "σ": f"{run.sigma:g}" if run.private else "",
            "C": f"{run.clip:g}" if run.private else "",
            "noise on the sum": f"{run.noise_std:g}" if run.private else "0",
            "noise / C": f"{run.noise_multiplier:.4g}" if run.private else "0",
            "sampling": first["sampling"],
            "b / N": f"{first['sample_rate']:.6f}",
            "steps": str(first["steps"]),
        }
        for item in group.itertuples():
            column = f"ε at δ = {item.delta:g}" + (f", {ACCOUNTANT_NAMES[item.accountant]}".rstrip(", "))
            row[column] = "∞" if math.isinf(item.epsilon) else f"{item.epsilon:.2f}"
        rows.append(row)
    table = pd.DataFrame(rows).fillna("")
    bare = [column for column in table if column.startswith("ε") and "," not in column]
    for column in bare:  # SGD: infinite by every accountant
        for named in (c for c in table if c.startswith(column + ",")):
            table[named] = table[named].where(table[column] == "", table[column])
    return table.drop(columns=[c for c in bare if any(o.startswith(c + ",") for o in table)])
