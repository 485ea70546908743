"""How many PGD steps it takes to fool a network (Fig 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.plots.style import STYLE, colours, label, legend, over_seeds
from dprobust.study import Run

DASHES = ((0, (1, 1.2)), (0, (3, 1.5)), (0, (7, 1.5)), "-")
"""Line styles of step sizes, from small to large."""


def draw(
    records: pd.DataFrame,
    runs: Sequence[Run],
    settings: Mapping[str, Any],
    epsilons: Mapping[str, float],
    note: str = "",
) -> tuple[Figure, pd.DataFrame]:
    """Share of the images classified right at the start that are fooled within so many steps, a panel an eps.

    Args:
        records: rows with columns run, seed, eps, alpha, iterations and value, a number of images, of the metrics
            "wrong_from_the_start" (iterations 0), "fooled" (iterations from 1) and "never_fooled" (within the last).
        runs: colours, in the order of the legend.
        settings: the figure's entry in the config: `title`.
        epsilons: run name -> privacy epsilon, for the legend.
        note: small print beside the title.

    Returns:
        The figure, and the numbers in it: run, eps, alpha, iterations, mean, min, max (share fooled within so many
        steps, over seeds), seeds. What is missing to 1 at the last step was never fooled.
    """
    shown = records[records["run"].isin([run.name for run in runs])]
    one = ["run", "eps", "alpha", "seed"]
    right = shown[shown["metric"] != "wrong_from_the_start"].groupby(one)["value"].sum()
    fooled = shown[shown["metric"] != "never_fooled"].set_index([*one, "iterations"])["value"].unstack()
    fooled[0] = 0  # wrong from the start: among neither the fooled nor those that could be
    share = fooled.cumsum(axis=1).div(right, axis=0).stack().rename("value").reset_index()
    curves = over_seeds(share, ["run", "eps", "alpha", "iterations"])

    panels, alphas = sorted(share["eps"].unique()), sorted(share["alpha"].unique())
    styles = dict(zip(alphas, DASHES[-len(alphas) :], strict=False))
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 2.5 * len(panels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for panel, eps in zip(axes, panels, strict=True):
            for run in runs:
                for alpha, style in styles.items():
                    of = (curves["run"] == run.name) & (curves["eps"] == eps) & (curves["alpha"] == alpha)
                    curve = curves[of]
                    panel.plot(curve["iterations"], curve["mean"], color=shade[run], linestyle=style, linewidth=1.4)
                    if (curve["seeds"] > 1).any():
                        panel.fill_between(
                            curve["iterations"], curve["min"], curve["max"], color=shade[run], alpha=0.12, linewidth=0
                        )
                    half = curve[curve["mean"] >= 0.5].head(1)
                    panel.plot(half["iterations"], half["mean"], "o", color=shade[run], markersize=3.5)
            panel.set_title(f"eps = {eps:g}", loc="left", fontsize=9)
            panel.set(xlabel="PGD steps", xlim=(0, curves["iterations"].max()), ylim=(-0.02, 1.02))
        axes[0].set_ylabel("fooled within so many steps,\nof the images classified right")
        axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        key = [("trained with", None)]
        key += [(label(run, epsilons.get(run.name)), Line2D([], [], color=shade[run])) for run in runs]
        key += [("", None), ("step size", None)]
        key += [
            (f"alpha = {alpha:g}", Line2D([], [], color="#555555", linestyle=style, linewidth=1.4))
            for alpha, style in styles.items()
        ]
        key += [
            ("", None),
            ("at least half are fooled", Line2D([], [], color="#555555", marker="o", markersize=3.5, linestyle="")),
        ]
        legend(figure, key)
        figure.suptitle(settings["title"], fontsize=10, x=0.01, ha="left")
        axes[-1].set_title(note, loc="right", fontsize=7, color="#777777")
    return figure, curves
