"""The gap between SGD and DP-SGD taken apart, drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dprobust.displays.decomposition.show import show as numbers
from dprobust.displays.decomposition_figure.display import Display
from dprobust.rendering import covers
from dprobust.showing import Given
from dprobust.style import DPSGD_COLOUR, GREY, SGD_COLOUR, STYLE, head, legend, wrapped

KINDS = {"alone": ("coupled runs less SGD", DPSGD_COLOUR), "share": ("shares of the gap", SGD_COLOUR)}
KINDS |= {"run": ("other runs less SGD", GREY)}


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """A panel an eps: bars in percentage points of accuracy, lines their 95 % intervals.

    Returns:
        The figure and the numbers of `dprobust.displays.decomposition.show`.
    """
    data, _ = numbers(given, settings)
    with mpl.rc_context(STYLE):
        terms = data["quantity"].nunique()
        figure = Figure(figsize=(3.2 + 2.6 * len(settings.eps), 1.5 + 0.42 * terms), layout="constrained")
        panels = figure.subplots(1, len(settings.eps), sharex=True, sharey=True, squeeze=False)[0]
        for axes, eps in zip(panels, settings.eps, strict=True):
            rows = data[data["eps"] == eps]
            y = np.arange(len(rows))
            axes.barh(y, rows["points"], color=[KINDS[kind][1] for kind in rows["kind"]], height=0.6)
            axes.hlines(y, rows["low"], rows["high"], color="black", linewidth=1)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_title(f"eps = {eps:g}")
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(y, [wrapped(text, 30) for text in rows["quantity"]])
        panels[0].invert_yaxis()
        for label in panels[0].get_yticklabels():
            label.set_parse_math(False)
        panels[len(panels) // 2].set_xlabel("percentage points of accuracy")
        key = [(KINDS[kind][0], Patch(color=KINDS[kind][1])) for kind in data["kind"].unique()]
        key += [(f"interval, {covers(data['seeds'].max())}", Line2D([], [], color="black", linewidth=1))]
        legend(figure, key)
        head(figure, settings.title, given.note)
    return figure, data
