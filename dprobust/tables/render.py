"""Tables for papers (LaTeX with booktabs) and for pages (HTML)."""

import pandas as pd


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
    for symbol, command in {
        "σ": r"$\sigma$",
        "ε": r"$\varepsilon$",
        "δ": r"$\delta$",
        "∞": r"$\infty$",
        "±": r"$\pm$",
        "−": "$-$",
    }.items():
        text = text.replace(symbol, command)
    return text
