"""Tables for pages (HTML) and papers (LaTeX with booktabs)."""

from pathlib import Path

import pandas as pd

from dprobust.files import replaced

MATHS = {"σ": r"$\sigma$", "ε": r"$\varepsilon$", "δ": r"$\delta$", "∞": r"$\infty$", "±": r"$\pm$", "−": "$-$"}


def html(table: pd.DataFrame) -> str:
    """An HTML table."""
    return table.to_html(index=False, border=0, classes="data", justify="left") + "\n"


def latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table with booktabs rules; Greek letters and mathematical signs are set in math mode."""
    text = table.to_latex(
        index=False,
        caption=caption,
        label=label,
        escape=True,
        column_format="l" * table.shape[1],
        multicolumn_format="c",
    )
    for symbol, command in MATHS.items():
        text = text.replace(symbol, command)
    return text


def write(table: pd.DataFrame, page: Path, paper: Path, title: str, note: str = "") -> None:
    """Write a table as HTML and as LaTeX, labelled by the file's name; `note` follows the title in brackets."""
    caption = f"{title} ({note})." if note else f"{title}."
    for path, text in ((page, html(table)), (paper, latex(table, caption, f"tab:{paper.stem}"))):
        with replaced(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
