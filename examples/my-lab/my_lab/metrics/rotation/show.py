"""Accuracy against the angle by which images are rotated."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.errors import UserError
from dprobust.showing import Given
from dprobust.statistics import summary
from dprobust.style import PAPER, STYLE, colours, head, legend, runs_key
from my_lab.metrics.rotation.display import Display


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves with bands of 95 % intervals over seeds and images.

    Of the records: the arrays angle, predicted and label.

    Returns:
        The figure, and the numbers in it: run, angle, mean, low, high, seeds; accuracies 0 to 1.

    Raises:
        UserError: a file with reference values that lacks a column.
    """
    runs = given.runs
    right = given.outcomes("rotation", _right)
    curves = pd.DataFrame(
        {"run": run, "angle": angle} | summary(values, within=(0, 1)) for (run, angle), values in right.items()
    )
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for run in runs:
            curve = curves[curves["run"] == run.name]
            axes.plot(curve["angle"], curve["mean"], color=shade[run], marker=".")
            axes.fill_between(curve["angle"], curve["low"], curve["high"], color=shade[run], alpha=0.18, linewidth=0)
        key = runs_key({run: given.label(run) for run in runs}, shade)
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


def _right(arrays: Mapping[str, np.ndarray]) -> dict[float, np.ndarray]:
    """Angle -> whether each image is right, bool (images,)."""
    return dict(zip(arrays["angle"].tolist(), arrays["predicted"] == arrays["label"], strict=True))
