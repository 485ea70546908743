"""Curves of accuracy against the size of an attack: a colour a run, a line style an attack, and the gap of two runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.runs import Run
from dprobust.showing import Given, Outcomes
from dprobust.statistics import Sample, difference, estimate, ratio, same
from dprobust.style import PAPER, STYLE, colours, head, legend, runs_key, short, wrapped

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
    right: Outcomes,
    eps: Sequence[float],
    attack: str,
    names: Mapping[str, str],
    words: Words,
    relative: bool = False,
    gap: bool = False,
    stated: Sequence[Sequence[float]] = (),
) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracies over eps; bands are 95 % intervals over seeds and images (`dprobust.statistics`).

    Args:
        given: of the display.
        right: outcomes of each run under each attack.
        eps: sizes of the attack, as in `right`.
        attack: what tells attacks apart, name of a column of the numbers.
        names: the attacks to draw, in the order of the line styles -> their names in the legend.
        words: what stands on the figure.
        relative: divide by the accuracy at the first eps.
        gap: show the gap between the first two runs in a lower panel, images and seeds paired.
        stated: gaps that the paper states, as (eps, percentage points).

    Returns:
        The figure, and the numbers in it: run, minus, the attack's column, eps, mean, low, high, seeds: of a run, or
        of its values less those of the run `minus`.
    """
    runs = given.runs

    def rows(run: str, name: str, minus: str = "") -> Iterator[dict[str, object]]:
        values, other = right[run, name], right.get((minus, name))
        for i, size in enumerate(eps):
            parts, combine = (values[:, i],), same
            if relative:
                parts, combine = (values[:, 0], values[:, i]), ratio
            if other is not None:
                parts = (*parts, *((other[:, 0],) if relative else ()), other[:, i])
                combine = _relative_difference if relative else difference
            found = estimate(Sample(parts, combine))
            low, high = found.interval()
            if not (minus or relative):
                low, high = max(low, 0.0), min(high, 1.0)
            yield {"run": run, "minus": minus, attack: name, "eps": size, "mean": found.value, "low": low} | {
                "high": high,
                "seeds": found.seeds,
            }

    drawn = pd.DataFrame(row for run in runs for name in names for row in rows(run.name, name))
    gaps = drawn[:0]
    if gap:
        first, second = (run.name for run in runs[:2])
        gaps = pd.DataFrame(row for name in names for row in rows(first, name, second))
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
        key = runs_key({run: given.label(run) for run in runs}, shade)
        key += [("", None), (words.attack, None)]
        key += [(names[name], Line2D([], [], color="#555555", **style)) for name, style in styles.items()]
        if stated:
            key += [("", None), ("stated by the paper", Line2D([], [], **PAPER))]
        if gap:
            _gap_panel(lower, gaps, attack, runs, styles, stated)
        legend(figure, key)
        lower.set_xlabel(words.x)
        lower.set_xlim(drawn["eps"].min(), drawn["eps"].max())
        head(figure, words.title, given.footnote)
    return figure, pd.concat([drawn, gaps], ignore_index=True) if len(gaps) else drawn


def _band(axes: Axes, curve: pd.DataFrame, colour: str, style: Mapping[str, object]) -> None:
    """A curve over its band, which is lighter where the line is not the solid one."""
    alpha = 0.18 if style["linestyle"] == "-" else 0.09
    axes.plot(curve["eps"], curve["mean"], color=colour, **style)
    axes.fill_between(curve["eps"], curve["low"], curve["high"], color=colour, alpha=alpha, linewidth=0)


def _relative_difference(*parts: np.ndarray) -> np.ndarray:
    """Of the first run's accuracies, without attack and under it, and the second's."""
    return parts[1] / parts[0] - parts[3] / parts[2]


def _gap_panel(
    axes: Axes,
    gaps: pd.DataFrame,
    attack: str,
    runs: Sequence[Run],
    styles: Mapping[str, Mapping[str, object]],
    stated: Sequence[Sequence[float]],
) -> None:
    points = gaps.assign(**{name: 100 * gaps[name] for name in ("mean", "low", "high")})
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
