"""The privacy table: epsilon of every run."""

import math
from typing import Any

import pandas as pd

from dprobust.accounting.adjacency import NONE
from dprobust.displays.privacy.display import Display
from dprobust.recipe import Statement
from dprobust.rendering import described
from dprobust.runs import Run
from dprobust.showing import Given

ACCOUNTANTS = {"rdp": "RDP", "prv": "PRV", "pld": "PLD", "gdp": "Gaussian DP", "stated": "its maker", "none": ""}
SAMPLERS = {
    "poisson": "Poisson",
    "truncated_poisson": "Poisson, at most {batch_cap:.0f}",
    "balls_in_bins": "balls in bins",
    "shuffle": "shuffled",
}


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The privacy table.

    Returns:
        The numbers: the privacy records, a row a run, delta, adjacency and accountant. A run of another's model
        (`temperature`) has its rows, for that is what was trained. Given weights have one of accountant "stated",
        "none" or "not known". And the table to read: a row a run and adjacency, first the one whose epsilon stands in
        legends; epsilon by the accountant that is tightest at the first delta, the others' at that delta beside it.
    """
    runs = {run.name: run for run in given.runs}
    pairs = zip(given.datasets, given.runs, strict=True)
    data = pd.concat([_of(run, dataset, given.privacy) for dataset, run in pairs], ignore_index=True)
    return data, _to_read(data, runs)


def _of(run: Run, dataset: str, accounted: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run."""
    if run.algorithm == "weights":
        return pd.DataFrame([{"dataset": dataset, "run": run.name, "adjacency": "not known"} | _statement(run)])
    return accounted[(accounted["dataset"] == dataset) & (accounted["run"] == run.base)].assign(run=run.name)


def _statement(run: Run) -> dict[str, Any]:
    if isinstance(run.privacy, Statement):
        told = {"delta": run.privacy.delta, "epsilon": run.privacy.epsilon, "accountant": "stated"}
        return told | {"guarantee": "as its maker states it; not checked here"}
    if run.privacy == "none":
        return {
            "delta": None,
            "epsilon": math.inf,
            "adjacency": NONE,
            "accountant": "none",
            "guarantee": "none: trained without, says its maker",
        }
    return {"delta": None, "epsilon": math.nan, "accountant": "not known", "guarantee": "not known"}


def _to_read(data: pd.DataFrame, runs: dict[str, Run]) -> pd.DataFrame:
    columns = {delta: f"ε at δ = {delta:g}" for delta in data["delta"].dropna().unique()} or {None: "ε"}
    lines = []
    for (dataset, name, adjacency), group in data.groupby(["dataset", "run", "adjacency"], sort=False):
        run, first = runs[name], group.iloc[0]
        row = {"dataset": dataset} | described(run) | {"neighbours": "" if adjacency == NONE else adjacency}
        row |= {"accountant": "", **dict.fromkeys(columns.values(), "")}  # first what the table is about
        if run.training:
            clipped, multiplier = run.clip is not None, first["noise_multiplier"]
            row |= {
                "noise on the sum": f"{multiplier * run.clip if clipped else run.sigma or 0:.4g}",
                "noise / C": f"{multiplier:.4g}" if clipped else "",
                "sampling": SAMPLERS[first["sampling"]].format(**first),
                "b / N": f"{first['sample_rate']:.6f}",
                "steps": f"{first['steps']:g}",
            }
        lines.append(row | _epsilons(group, columns) | {"guarantee": _guarantee(run, first)})
    table = pd.DataFrame(lines).fillna("")
    last = ["other accountants"] if "other accountants" in table and table["other accountants"].any() else []
    last.append("guarantee")
    return table[[column for column in table if column not in ("other accountants", "guarantee")] + last]


def _guarantee(run: Run, first: pd.Series) -> str:
    alone = run.private and "coupled" in run.own
    return first["guarantee"].partition(";")[0] + (", for this model alone: it is coupled" if alone else "")


def _epsilons(group: pd.DataFrame, columns: dict[Any, str]) -> dict[str, str]:
    """The cells of a run and adjacency: the accountant that is tightest at the first delta, and what all say."""
    if group["delta"].isna().all():  # whatever delta
        value, accountant = group.iloc[0][["epsilon", "accountant"]]
        return {"accountant": ACCOUNTANTS.get(accountant, accountant)} | dict.fromkeys(columns.values(), _text(value))
    first = group[group["delta"] == group["delta"].iloc[0]].sort_values("epsilon", kind="stable")
    tightest = first["accountant"].iloc[0]
    told = group[group["accountant"] == tightest]
    others = (f"{ACCOUNTANTS[item.accountant]} {_text(item.epsilon)}" for item in first.iloc[1:].itertuples())
    return {
        "accountant": ACCOUNTANTS[tightest],
        **{columns[item.delta]: _text(item.epsilon) for item in told.itertuples()},
        "other accountants": ", ".join(others),
    }


def _text(value: float) -> str:
    return "not known" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.2f}"
