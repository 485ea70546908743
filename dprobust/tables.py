"""The tables, made from records alone: as data (CSV), for papers (LaTeX with booktabs) and for pages (HTML)."""

import math

import pandas as pd

from dprobust.study import Run

ACCOUNTANT_NAMES = {"rdp": "RDP", "prv": "PRV", "gdp": "GDP bound", "none": ""}


def privacy(records: pd.DataFrame) -> pd.DataFrame:
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


def html(table: pd.DataFrame) -> str:
    """An HTML table."""
    return table.to_html(index=False, border=0, classes="data", justify="left") + "\n"


def latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table with booktabs rules; Greek letters and the infinity sign are set in math mode."""
    text = table.to_latex(index=False, caption=caption, label=label, escape=True, column_format="l" * table.shape[1])
    for symbol, command in {
        "σ": r"$\sigma$",
        "ε": r"$\varepsilon$",
        "δ": r"$\delta$",
        "∞": r"$\infty$",
    }.items():
        text = text.replace(symbol, command)
    return text
