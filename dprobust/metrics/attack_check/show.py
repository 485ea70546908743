"""Is what an attack leaves robustness? Checks in rows, runs in columns."""

from html import escape

import pandas as pd

from dprobust.metrics.attack_check.display import Display
from dprobust.rendering import headings
from dprobust.showing import Given

NAMES = {
    "p_is_1": "p = 1",
    "wrong_direction": "wrong direction",
    "zero_gradient": "zero gradient",
    "softmax_output": "outputs are probabilities",
    "one_step": "one step does better",
    "smaller_ball": "half of eps does better",
    "left_at_0.5": "left at eps 0.5",
    "left_at_1": "left at eps 1",
    "loss_not_rising": "loss does not rise",
    "unreached": "eps not reached",
    "out_of_bounds": "out of the ball or [0, 1]",
    "other_loss": "margin breaks more",
    "restarts": "random starts break more",
    "black_box": "Square Attack breaks more",
    "transfer": "other models' images break more",
    "planted_missed": "planted points missed",
    "random_signs": "random signs raise as much",
    "not_deterministic": "passes differ",
    "training_mode": "training mode",
}
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
    records = records.assign(flagged=records["flagged"].astype(str) == "True")
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
