"""The table of audits."""

import pandas as pd

from dprobust.metrics.audit.display import Display
from dprobust.rendering import described
from dprobust.showing import Given

ALARM = 1e-6
"""A check that chance explains no better than this is a fault."""


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the audits found, from the smallest to the largest value over seeds.

    Of the records: all rows.

    Returns:
        The numbers: those rows. And the table to read, a row a run.
    """
    records = given.records["audit"]
    rows = []
    for run in given.runs:
        own = records[records["run"] == run.name]
        found = dict(iter(own.groupby("metric")["value"]))
        row = described(run) | {"canaries": _range(own["n"], "g"), "guesses right": _guesses(own)}
        faults = []
        for delta in own["delta"].dropna().unique():
            at = own[own["delta"] == delta].pivot(index="seed", columns="metric", values="value")
            row[f"ε ≥, 95 %, δ = {delta:g}"] = _range(at["epsilon_lower"], ".2f")
            row[f"ε accounted, δ = {delta:g}"] = _range(at["epsilon"], ".2f")
            if (at["epsilon_lower"] > at["epsilon"]).any():
                faults.append(f"ε at δ = {delta:g}")
        noise = own[own["metric"].str.fullmatch(r"noise \d+")]
        row["noise / stated"] = _range(noise["value"], ".2f")
        row["gradients / stated"] = _range(found["gradient"], ".2f")
        row["smallest p"] = f"{own['p'].min():.2g}"
        faults += own.loc[own["p"] < ALARM, "metric"].unique().tolist()
        row["fault"] = ", ".join(faults) or "none found"
        rows.append(row)
    return records[records["run"].isin([run.name for run in given.runs])], pd.DataFrame(rows).fillna("")


def _guesses(own: pd.DataFrame) -> str:
    table = own[own["metric"].isin(["guesses", "right"])].pivot(index="seed", columns="metric", values="value")
    return ", ".join(f"{right:g} of {guesses:g}" for guesses, right in table.to_numpy())


def _range(values: pd.Series, form: str) -> str:
    ends = [format(value, form) for value in (values.min(), values.max())]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
