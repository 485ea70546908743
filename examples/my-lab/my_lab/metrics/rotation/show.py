"""Accuracy against the angle by which images are rotated."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.errors import UserError
from dprobust.showing import Given
from dprobust.style import PAPER, STYLE, colours, head, legend, over_seeds, runs_key
from my_lab.metrics.rotation.display import Display


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves with bands from the smallest to the largest value over seeds.

    Of the records: rows of metric "accuracy" with columns run, seed, angle, value.

    Returns:
        The figure, and the numbers in it: run, angle, mean, min, max, seeds; accuracies 0 to 1.

    Raises:
        UserError: a file with reference values that lacks a column.
    """
    runs, records = given.runs, given.records["rotation"]
    shown = records[(records["metric"] == "accuracy") & records["run"].isin([run.name for run in runs])]
    curves = over_seeds(shown, ["run", "angle"])
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for run in runs:
            curve = curves[curves["run"] == run.name]
            axes.plot(curve["angle"], curve["mean"], color=shade[run], marker=".")
            axes.fill_between(curve["angle"], curve["min"], curve["max"], color=shade[run], alpha=0.18, linewidth=0)
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in runs}, shade)
        if given.paper is not None:
            if missing := {"angle", "accuracy"} - set(given.paper):
                raise UserError(f"{settings.paper}: no column {sorted(missing)[0]}; it needs angle and accuracy")
            axes.plot(given.paper["angle"], given.paper["accuracy"], zorder=3, **PAPER)
            key += [("", None), (settings.reference, Line2D([], [], **PAPER))]
        legend(figure, key)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("accuracy")
        axes.set_xlabel("rotation in degrees, counterclockwise")
        head(figure, settings.title, given.note)
    return figure, curves
