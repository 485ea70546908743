"""Accuracy against eps from both sides: certified below, attacked above."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from dprobust.metrics.certificates.display import Display
from dprobust.showing import Given
from dprobust.statistics import mean_interval
from dprobust.style import GREY, STYLE, colours, head, legend, runs_key

SIDES = {"attacked": ("-", "left by PGD"), "certified": ((0, (5, 1.6)), "certified")}
"""Side -> line style, and its name in the legend; the upper first."""


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """A band a run between the two sides' means over seeds; bars reach to the outer ends of 95 % intervals.

    Of the records: the arrays eps, margin, attacked and clean.

    Returns:
        The figure, and the numbers in it: run, side ("certified" or "attacked", both of which begin at eps 0 without
        attack), eps, mean, low, high (the interval over seeds and images, `dprobust.statistics`, within 0 to 1), seeds.
    """
    eps = [0.0, *next(iter(given.arrays.values()))["eps"].tolist()]

    def right(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        by_side = {"certified": arrays["margin"] > 0, "attacked": arrays["attacked"]}
        return {side: np.concatenate([arrays["clean"][None], values]) for side, values in by_side.items()}

    found, rows = given.outcomes("certificates", right), []
    for run in given.runs:
        for side in SIDES:
            for i, size in enumerate(eps):
                values = found[run.name, side][:, i]
                value, low, high = mean_interval(values, within=(0, 1))
                row = {"run": run.name, "side": side, "eps": size, "mean": value}
                rows.append(row | {"low": low, "high": high, "seeds": len(values)})
    drawn = pd.DataFrame(rows)
    shade = colours(given.runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for place, run in enumerate(given.runs):
            beside = 0.008 * (place - (len(given.runs) - 1) / 2) * max(eps)  # bars of several runs stand side by side
            _band(axes, drawn[drawn["run"] == run.name], shade[run], beside)
        axes.set(xlim=(-0.02 * max(eps), 1.02 * max(eps)), ylim=(-0.02, 1.02), ylabel="accuracy")
        axes.set_xlabel("eps (largest change of a pixel, pixels in [0, 1])")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        key = runs_key({run: given.label(run) for run in given.runs}, shade)
        key += [("", None), ("from both sides", None)]
        key += [(name, Line2D([], [], color=GREY, linestyle=style)) for style, name in SIDES.values()]
        key += [("not known", Patch(facecolor=GREY, alpha=0.2))]
        legend(figure, key)
        head(figure, settings.title, given.footnote)
    return figure, drawn


def _band(axes: Axes, curves: pd.DataFrame, colour: str, beside: float) -> None:
    by_side = {side: curves[curves["side"] == side].sort_values("eps") for side in SIDES}
    upper, lower = by_side["attacked"], by_side["certified"]
    axes.fill_between(upper["eps"], lower["mean"], upper["mean"], color=colour, alpha=0.18, linewidth=0)
    for side, (style, _) in SIDES.items():
        curve = by_side[side]
        axes.plot(curve["eps"], curve["mean"], color=colour, linestyle=style, marker="o", markersize=3)
        end = curve["high" if side == "attacked" else "low"]
        axes.vlines(curve["eps"] + beside, curve["mean"], end, color=colour, linewidth=0.9)
