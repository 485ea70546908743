"""The privacy table: epsilon of every run."""

import math
from typing import Any

import pandas as pd

from dprobust.displays.privacy.display import Display
from dprobust.recipe import Statement
from dprobust.rendering import described
from dprobust.runs import Run
from dprobust.showing import Given

ACCOUNTANTS = {"rdp": "RDP", "prv": "PRV", "pld": "PLD", "gdp": "GDP bound"}


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The privacy table.

    Returns:
        The numbers: the privacy records, a row a run, delta and accountant. A run of another's model (`temperature`)
        has its rows, for that is what was trained. Given weights have one of accountant "stated", "none" or "not
        known". And the table to read: a row a run.
    """
    runs = {run.name: run for run in given.runs}
    pairs = zip(given.datasets, given.runs, strict=True)
    data = pd.concat([_of(run, dataset, given.privacy) for dataset, run in pairs], ignore_index=True)
    return data, _to_read(data, runs)


def _of(run: Run, dataset: str, accounted: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run."""
    if run.algorithm == "weights":
        return pd.DataFrame([{"dataset": dataset, "run": run.name} | _statement(run)])
    return accounted[(accounted["dataset"] == dataset) & (accounted["run"] == run.base)].assign(run=run.name)


def _statement(run: Run) -> dict[str, Any]:
    if isinstance(run.privacy, Statement):
        told = {"delta": run.privacy.delta, "epsilon": run.privacy.epsilon, "accountant": "stated"}
        return told | {"guarantee": "as its maker states it; not checked here"}
    if run.privacy == "none":
        return {
            "delta": None,
            "epsilon": math.inf,
            "accountant": "none",
            "guarantee": "none: trained without, says its maker",
        }
    return {"delta": None, "epsilon": math.nan, "accountant": "not known", "guarantee": "not known"}


def _to_read(data: pd.DataFrame, runs: dict[str, Run]) -> pd.DataFrame:
    rows, epsilons = [], {}
    for (dataset, name), group in data.groupby(["dataset", "run"], sort=False):
        run, first = runs[name], group.iloc[0]
        row = {"dataset": dataset} | described(run)
        if run.training:
            clipped, multiplier = run.clip is not None, first["noise_multiplier"]
            row |= {
                "noise on the sum": f"{multiplier * run.clip if clipped else run.sigma or 0:.4g}",
                "noise / C": f"{multiplier:.4g}" if clipped else "",
                "sampling": first["sampling"],
                "b / N": f"{first['sample_rate']:.6f}",
                "steps": f"{first['steps']:g}",
            }
        cells = {_column(item.delta, item.accountant): _epsilon(item.epsilon) for item in group.itertuples()}
        epsilons |= dict.fromkeys(cells)
        rows.append((row, cells, first["guarantee"].partition(";")[0]))
    accounted = [column for column in epsilons if column != "ε" and not column.endswith("stated")]
    shown = [column for column in epsilons if column != "ε"] if accounted else list(epsilons)
    lines = []
    for row, cells, guarantee in rows:
        if "ε" in cells:  # at any delta, by any accountant
            cells |= dict.fromkeys(accounted, cells["ε"])
        lines.append(row | {column: cells.get(column, "") for column in shown} | {"guarantee": guarantee})
    table = pd.DataFrame(lines).fillna("")
    return table[[column for column in table if column not in (*shown, "guarantee")] + [*shown, "guarantee"]]


def _column(delta: float, accountant: str) -> str:
    """The heading that an epsilon stands below; "ε" for what holds at any delta."""
    if accountant in ("none", "not known"):
        return "ε"
    return f"ε at δ = {delta:g}, {ACCOUNTANTS.get(accountant, accountant)}"


def _epsilon(value: float) -> str:
    return "not known" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.2f}"
