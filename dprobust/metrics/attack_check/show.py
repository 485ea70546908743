"""Is what an attack leaves robustness? Checks in rows, runs in columns."""

from html import escape

import pandas as pd

from dprobust.metrics.attack_check.display import Display
from dprobust.metrics.attack_check.flags import NAMES, is_flagged
from dprobust.rendering import headings
from dprobust.showing import Given

GREEN, RED = "background:#e3f4e6;color:#14532d", "background:#fde2e1;color:#7f1d1d;font-weight:600"


def show(given: Given, settings: Display) -> tuple[str, pd.DataFrame]:
    """The page.

    Returns:
        HTML: a table for each eps; a cell has the number, its mean over seeds, and "ok" or "FLAG" (in how many of the
        seeds). And the numbers: eps, check, run, mean, min, max, threshold, flagged (seeds that are), seeds.
    """
    titles = headings(given.runs)
    records = given.records["attack_check"]
    records = records[records["run"].isin(titles)]
    records = records.assign(flagged=is_flagged(records))
    data = (
        records.groupby(["eps", "check", "run"], sort=False)
        .agg(
            mean=("value", "mean"),
            min=("value", "min"),
            max=("value", "max"),
            threshold=("threshold", "first"),
            flagged=("flagged", "sum"),
            seeds=("seed", "nunique"),
        )
        .reset_index()
    )
    parts = [_table(rows, eps, titles) for eps, rows in data.groupby("eps")]
    note = f'<p class="soft">{escape(given.note)}</p>\n' if given.note else ""
    return "\n".join(parts) + note, data


def _table(data: pd.DataFrame, eps: float, titles: dict[str, str]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles.values())
    rows = []
    for name, cells in data.groupby("check", sort=False):
        cells = cells.set_index("run")
        threshold = f"{cells['threshold'].iloc[0]:g}"
        body = "".join(_cell(cells.loc[run]) if run in cells.index else "<td></td>" for run in titles)
        rows.append(f"<tr><th>{escape(NAMES.get(name, name))}</th><td>≤ {threshold}</td>{body}</tr>")
    flagged = data[data["flagged"] > 0].groupby("run").size()
    totals = "".join(f"<td>{flagged.get(run, 0)} flagged</td>" for run in titles)
    return (
        f'<div style="overflow-x:auto"><table class="data">\n<thead><tr><th>eps = {eps:g}</th><th>passes</th>{head}'
        f"</tr></thead>\n<tbody>\n" + "\n".join(rows) + f"\n<tr><th>in all</th><td></td>{totals}</tr>\n</tbody>\n"
        "</table></div>\n"
    )


def _cell(cell: pd.Series) -> str:
    if pd.isna(cell["mean"]):
        return "<td>nothing to test</td>"
    value = f"{cell['mean']:.3g}".replace("-", "−")
    if not cell["flagged"]:
        return f'<td style="{GREEN}">{value} ok</td>'
    of = f" ({cell['flagged']} of {cell['seeds']} seeds)" if cell["seeds"] > 1 else ""
    return f'<td style="{RED}">{value} FLAG{of}</td>'
