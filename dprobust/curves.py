"""Curves of accuracy against the size of an attack: a colour a run, a line style an attack, and the gap of two runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.runs import Run
from dprobust.showing import Given
from dprobust.style import PAPER, STYLE, colours, head, legend, over_seeds, runs_key, short, wrapped

STYLES = (
    {"linestyle": "-", "linewidth": 1.7},
    {"linestyle": (0, (5, 1.6)), "linewidth": 1.2},
    {"linestyle": (0, (1, 1.1)), "linewidth": 1.5},
    {"linestyle": (0, (5, 1.2, 1, 1.2)), "linewidth": 1.0},
)
"""Of the attacks, in their order."""


class Words(NamedTuple):
    """What stands on a figure of curves."""

    title: str
    x: str
    """What the attack's size is, for the axis."""
    y: str = "accuracy"
    attack: str = "attack"
    """Heading of the attacks in the legend."""


def curves(
    given: Given,
    values: pd.DataFrame,
    attack: str,
    names: Mapping[str, str],
    words: Words,
    gap: bool = False,
    stated: Sequence[Sequence[float]] = (),
) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracies over eps, with bands from the smallest to the largest value over seeds.

    Args:
        given: of the display.
        values: rows with columns run, seed, eps, value (0 to 1), and one, `attack`, that names the attack.
        attack: name of that column.
        names: the attacks to draw, in the order of the line styles -> their names in the legend.
        words: what stands on the figure.
        gap: show the gap between the first two runs in a lower panel.
        stated: gaps that the paper states, as (eps, percentage points).

    Returns:
        The figure, and the numbers in it: run, minus, the attack's column, eps, mean, min, max, seeds: of a run, or
        what is left of its values less those of the run `minus` (of the same seed).
    """
    runs = given.runs
    values = values[values["run"].isin([run.name for run in runs]) & values[attack].isin(list(names))]
    drawn = over_seeds(values, ["run", attack, "eps"])
    drawn.insert(1, "minus", "")
    gaps = _gaps(values, attack, runs) if gap else drawn[:0]
    shade = colours(runs)
    styles = dict(zip(names, STYLES, strict=False))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.4 if gap else 4.0), layout="constrained")
        if gap:
            axes, lower = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
        else:
            axes = lower = figure.subplots()
        for run in runs:
            for name, style in styles.items():
                _band(axes, drawn[(drawn["run"] == run.name) & (drawn[attack] == name)], shade[run], style)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel(words.y)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in runs}, shade)
        key += [("", None), (words.attack, None)]
        key += [(names[name], Line2D([], [], color="#555555", **style)) for name, style in styles.items()]
        if stated:
            key += [("", None), ("stated by the paper", Line2D([], [], **PAPER))]
        if gap:
            _gap_panel(lower, gaps, attack, runs, styles, stated)
        legend(figure, key)
        lower.set_xlabel(words.x)
        lower.set_xlim(drawn["eps"].min(), drawn["eps"].max())
        head(figure, words.title, given.note)
    return figure, pd.concat([drawn, gaps], ignore_index=True) if len(gaps) else drawn


def _band(axes: Axes, curve: pd.DataFrame, colour: str, style: Mapping[str, object]) -> None:
    """A curve over its band, which is lighter where the line is not the solid one."""
    alpha = 0.18 if style["linestyle"] == "-" else 0.09
    axes.plot(curve["eps"], curve["mean"], color=colour, **style)
    if (curve["seeds"] > 1).any():
        axes.fill_between(curve["eps"], curve["min"], curve["max"], color=colour, alpha=alpha, linewidth=0)


def _gaps(values: pd.DataFrame, attack: str, runs: Sequence[Run]) -> pd.DataFrame:
    """First run less second, over the seeds that both have."""
    first, second = (run.name for run in runs[:2])
    wide = values.pivot_table(index=[attack, "seed", "eps"], columns="run", values="value")
    gaps = (wide[first] - wide[second]).rename("value").dropna().reset_index()
    found = over_seeds(gaps, [attack, "eps"])
    found.insert(0, "run", first)
    found.insert(1, "minus", second)
    return found


def _gap_panel(
    axes: Axes,
    gaps: pd.DataFrame,
    attack: str,
    runs: Sequence[Run],
    styles: Mapping[str, Mapping[str, object]],
    stated: Sequence[Sequence[float]],
) -> None:
    points = gaps.assign(**{name: 100 * gaps[name] for name in ("mean", "min", "max")})
    for name, style in styles.items():
        _band(axes, points[points[attack] == name], "#333333", style)
    for eps, gap in stated:
        axes.plot(eps, gap, zorder=3, clip_on=False, **PAPER)
        axes.annotate(f"{gap:g}", (eps, gap), (6, 4), textcoords="offset points", fontsize=8, color="#A8487D")
    axes.axhline(0, color="#999999", linewidth=0.8)
    names = short(runs)
    both = " − ".join(names[run] for run in runs[:2])
    if len(both) > 24:
        both = "\n− ".join(wrapped(names[run], 24) for run in runs[:2])
    axes.set_ylabel(f"gap (points)\n{both}", parse_math=False)
    axes.margins(y=0.18)
