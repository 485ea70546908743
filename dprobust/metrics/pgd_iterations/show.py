"""How many PGD steps it takes to fool a network (Fig 4)."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dprobust.metrics.pgd_iterations.display import Display
from dprobust.showing import Given
from dprobust.statistics import summary
from dprobust.style import GREY, LOSS_NAMES, STYLE, colours, head, legend, runs_key

OF = {
    "right": "fooled within so many steps,\nof the images classified right",
    "all": "wrong within so many steps,\nof all images",
}
"""What a share is of: the images classified right at the start; all, with those wrong from the start at step 0."""


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Share of the images that are fooled within so many steps: a column of panels an eps, a row a denominator.

    Of the records: the arrays loss, eps, alpha, steps and first.

    Returns:
        The figure, and the numbers in it: run, of (a key of `OF`), eps, alpha, iterations, mean, low, high (share of
        the images with its 95 % interval over seeds and images, `dprobust.statistics`), seeds. What is missing to 1 at
        the last step was never fooled.
    """
    curves = pd.DataFrame(_shares(given, settings.loss)).dropna(subset="mean", ignore_index=True)
    eps, alphas = sorted(curves["eps"].unique()), sorted(curves["alpha"].unique())
    styles = dict(zip(alphas, _dashes(len(alphas)), strict=True))
    shade = colours(given.runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 2.3 * len(eps), 5.0), layout="constrained")
        panels = figure.subplots(len(OF), len(eps), sharex=True, sharey=True, squeeze=False)
        for row, (of, name) in zip(panels, OF.items(), strict=True):
            for panel, value in zip(row, eps, strict=True):
                here = curves[(curves["of"] == of) & (curves["eps"] == value)]
                for run in given.runs:
                    for alpha, style in styles.items():
                        curve = here[(here["run"] == run.name) & (here["alpha"] == alpha)]
                        _curve(panel, curve, shade[run], style)
            row[0].set_ylabel(name)
        for panel, value in zip(panels[0], eps, strict=True):
            panel.set_title(f"eps = {value:g}", loc="left", fontsize=9)
        for panel in panels[-1]:
            panel.set_xlabel("PGD steps")
        panels[0, 0].set(xlim=(0, curves["iterations"].max()), ylim=(-0.02, 1.02))
        panels[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
        key = runs_key({run: given.label(run) for run in given.runs}, shade)
        key += [("", None), ("step size", None)]
        key += [
            (f"alpha = {alpha:g}", Line2D([], [], color=GREY, linestyle=style, linewidth=1.4))
            for alpha, style in styles.items()
        ]
        dot = Line2D([], [], color=GREY, marker="o", markersize=3.5, linestyle="")
        key += [("", None), ("at least half are fooled", dot)]
        key += [
            ("", None),
            (("attack follows the\n" if settings.loss != "worst" else "") + LOSS_NAMES[settings.loss], None),
        ]
        legend(figure, key)
        head(figure, settings.title, given.footnote)
    return figure, curves


def _shares(given: Given, loss: str) -> Iterator[dict[str, object]]:
    """The rows of the numbers."""
    arrays = {key: value for key, value in given.arrays.items() if key[0] == "pgd_iterations"}
    axes = next(iter(arrays.values()))
    steps, chosen = int(axes["steps"][0]), axes["loss"].tolist()
    places = range(len(chosen)) if loss == "worst" else [chosen.index(loss)]
    for run in given.runs:
        own = [
            of["first"][places].min(0)
            for key, of in sorted(arrays.items(), key=lambda item: item[0][3])
            if key[2] == run.name
        ]
        for i, eps in enumerate(axes["eps"].tolist()):
            for j, alpha in enumerate(axes["alpha"].tolist()):
                first = np.stack([of[i, j] for of in own])
                for of in OF:
                    for step in range(steps + 1):
                        fooled = (first <= step).astype(np.float64)
                        if of == "right":  # wrong from the start: among neither the fooled nor those that could be
                            fooled[first == 0] = np.nan
                        about = {"run": run.name, "of": of, "eps": eps, "alpha": alpha, "iterations": step}
                        yield about | summary(fooled, within=(0, 1))


def _dashes(n: int) -> list[object]:
    """Line styles of `n` step sizes, from small to large: dots, longer and longer dashes, a solid line."""
    return [*((0, (length, 1.3)) for length in np.geomspace(1, 7, n - 1)), "-"] if n > 1 else ["-"]


def _curve(axes: Axes, curve: pd.DataFrame, colour: str, style: object) -> None:
    axes.plot(curve["iterations"], curve["mean"], color=colour, linestyle=style, linewidth=1.4)
    axes.fill_between(curve["iterations"], curve["low"], curve["high"], color=colour, alpha=0.12, linewidth=0)
    half = curve[curve["mean"] >= 0.5].head(1)
    axes.plot(half["iterations"], half["mean"], "o", color=colour, markersize=3.5)
