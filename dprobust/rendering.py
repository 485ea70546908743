"""Tables for pages (HTML) and papers (LaTeX with booktabs), and the words for runs in their rows and columns."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from dprobust.files import replaced
from dprobust.runs import Run

SPECIALS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
"""What LaTeX reads as a command -> how it prints it."""

MATHS = {
    "σ": r"$\sigma$",
    "ε": r"$\varepsilon$",
    "δ": r"$\delta$",
    "α": r"$\alpha$",
    "η": r"$\eta$",
    "∞": r"$\infty$",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": "$^2$",
    "<": "$<$",
    ">": "$>$",
}
LONG = 40
"""A cell of so many characters may be broken into lines."""


def tex(text: str) -> str:
    """Text as LaTeX prints it: its commands' characters escaped; Greek letters and signs are left to `latex`."""
    return "".join(SPECIALS.get(character, character) for character in text)


def html(table: pd.DataFrame, note: str = "") -> str:
    """An HTML table, its small print below."""
    text = table.to_html(index=False, border=0, classes="data", justify="left") + "\n"
    text = re.sub(rf"<td>([^<]{{{LONG},}})</td>", r'<td class="long">\1</td>', text)
    return text + (f'<p class="soft">{escape(note)}</p>\n' if note else "")


def latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table with booktabs rules.

    All text is escaped, that of the caption too; Greek letters and mathematical signs are set in math mode.
    """
    columns = (table.iloc[:, i].astype(str).str.len().max() for i in range(table.shape[1]))
    text = table.to_latex(
        index=False,
        caption=tex(caption),
        label=label,
        escape=True,
        column_format="".join("p{5cm}" if length >= LONG else "l" for length in columns),
        multicolumn_format="c",
    )
    for symbol, command in MATHS.items():
        text = text.replace(symbol, command)
    return re.sub(r"(\\\\|rule)\n([\[*])", r"\1\n{}\2", text)  # a line that starts so would be the command's option


def write(table: pd.DataFrame, page: Path, paper: Path, title: str, note: str = "") -> None:
    """Write a table as HTML and as LaTeX, labelled by the file's name; `note` stands on both."""
    caption = f"{title} ({note})." if note else f"{title}."
    for path, text in ((page, html(table, note)), (paper, latex(table, caption, f"tab:{paper.stem}"))):
        with replaced(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def headings(runs: Sequence[Run], short: bool = False) -> dict[str, str]:
    """Run name -> a heading that no other of the runs has.

    Args:
        short: leave out "DP-SGD" where sigma and C are all there is to say of it.
    """
    full = {run.name: run.label() for run in runs}
    plain = {
        run.name: run.setting
        for run in runs
        if run.algorithm == "dpsgd" and not run.title and set(run.own) == {"sigma", "clip"}
    }
    choices = ([full | plain] if short else []) + [full]
    unique = (choice for choice in choices if len(set(choice.values())) == len(choice))
    return next(unique, {name: f"{heading} [{name}]" for name, heading in full.items()})


def described(run: Run) -> dict[str, str]:
    """Algorithm and setting of a run, for the columns of a table."""
    if run.algorithm == "weights":
        told = [run.title or run.base.removeprefix("weights="), *run.scaling]
        return {"algorithm": "given weights", "setting": ", ".join(told)}
    setting = ": ".join(filter(None, (run.title, run.setting)))
    return {"algorithm": "DP-SGD" if run.algorithm == "dpsgd" else "SGD", "setting": setting}


def interval(value: float, low: float, high: float, digits: int = 2, form: str = "") -> str:
    """A value and its interval, as text: ``84.12 [83.01, 85.20]``; empty for nan, and without the ends if they are.

    Args:
        form: what stands before the precision in a format specification, as "+" for signs.
    """
    if pd.isna(value):
        return ""
    told = [f"{number:{form}.{digits}f}" for number in (value, low, high)]
    # What is rounded to 0 has no sign.
    told = [text.lstrip("-") if float(text) == 0 else text for text in told]
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{told[1]}, {told[2]}]"
    return (told[0] + ends).replace("-", "−")


def covers(seeds: int) -> str:
    """What intervals cover that come from at most so many seeds, for the head of a column."""
    return "95 %" if seeds > 1 else "95 %, images only"
