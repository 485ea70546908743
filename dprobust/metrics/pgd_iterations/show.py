"""How many PGD steps it takes to fool a network (Fig 4)."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dprobust.metrics.pgd_iterations.display import Display
from dprobust.showing import Given
from dprobust.style import GREY, LOSS_NAMES, STYLE, colours, head, legend, over_seeds, runs_key

OF = {
    "right": "fooled within so many steps,\nof the images classified right",
    "all": "wrong within so many steps,\nof all images",
}
"""What a share is of: the images classified right at the start; all, with those wrong from the start at step 0."""


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Share of the images that are fooled within so many steps: a column of panels an eps, a row a denominator.

    Of the records: rows of the loss shown with columns run, seed, eps, alpha, iterations and value, a number of images,
    of the metrics "wrong_from_the_start" (iterations 0), "fooled" (iterations from 1) and "never_fooled" (within the
    last).

    Returns:
        The figure, and the numbers in it: run, of (a key of `OF`), eps, alpha, iterations, mean, min, max (share of the
        images, over seeds), seeds. What is missing to 1 at the last step was never fooled.
    """
    records = given.records["pgd_iterations"]
    shown = records[records["run"].isin([run.name for run in given.runs]) & (records["loss"] == settings.loss)]
    curves = over_seeds(_shares(shown), ["run", "of", "eps", "alpha", "iterations"])
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
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in given.runs}, shade)
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
        head(figure, settings.title, given.note)
    return figure, curves


def _shares(counts: pd.DataFrame) -> pd.DataFrame:
    """Shares by both denominators: run, eps, alpha, seed, iterations, of, value."""
    one = ["run", "eps", "alpha", "seed"]
    total = counts.groupby(one, sort=False)["value"].sum()
    by_step = counts[counts["metric"] != "never_fooled"].set_index([*one, "iterations"])["value"].unstack()
    wrong = by_step[0].copy()
    every = by_step.cumsum(axis=1).div(total, axis=0)
    by_step[0] = 0  # wrong from the start: among neither the fooled nor those that could be
    right = by_step.cumsum(axis=1).div((total - wrong).where(lambda images: images > 0), axis=0)
    # Where no image is right at the start, no share of them exists.
    shares = {"right": right, "all": every}
    long = [share.stack().rename("value").dropna().reset_index().assign(of=of) for of, share in shares.items()]
    return pd.concat(long, ignore_index=True)


def _dashes(n: int) -> list[object]:
    """Line styles of `n` step sizes, from small to large: dots, longer and longer dashes, a solid line."""
    return [*((0, (length, 1.3)) for length in np.geomspace(1, 7, n - 1)), "-"] if n > 1 else ["-"]


def _curve(axes: Axes, curve: pd.DataFrame, colour: str, style: object) -> None:
    axes.plot(curve["iterations"], curve["mean"], color=colour, linestyle=style, linewidth=1.4)
    if (curve["seeds"] > 1).any():
        axes.fill_between(curve["iterations"], curve["min"], curve["max"], color=colour, alpha=0.12, linewidth=0)
    half = curve[curve["mean"] >= 0.5].head(1)
    axes.plot(half["iterations"], half["mean"], "o", color=colour, markersize=3.5)
