"""ROC of membership inference by the loss."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dprobust.membership import true_positives
from dprobust.metrics.membership.display import Display
from dprobust.showing import Given
from dprobust.style import STYLE, colours, head, legend, over_seeds, runs_key

POINTS = 61
CEILINGS = {
    "added": ("one example added or left out", {"linestyle": (0, (5, 1.6)), "linewidth": 1.1}),
    "replaced": ("one example replaced by another", {"linestyle": (0, (1, 1.1)), "linewidth": 1.4}),
}
"""Game -> its words in the legend, its line."""
MISLABELLED = {"linestyle": (0, (4, 1.2, 1, 1.2)), "linewidth": 1.2}


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """ROC curves with bands from the smallest to the largest value over seeds, and ceilings of private runs.

    Of the records: the arrays `member_loss`, `loss` and `other`; rows of metric auc and ceiling.

    Returns:
        The figure, and the numbers in it: run, curve ("roc"; "mislabelled", that of mislabelled training images;
        "added" or "replaced", ceilings; "auc", "mislabelled auc"), fpr, mean, min, max and seeds of the true positive
        rate, or of the area under the curve.
    """
    runs, records = given.runs, given.records["membership"]
    names = {run.name for run in runs}
    grid = np.logspace(np.log10(settings.from_fpr), 0, POINTS)
    measured = [
        pd.DataFrame({"run": name, "curve": curve, "fpr": grid, "value": true_positives(*scores, grid)})
        for (_, _, name, _), arrays in given.arrays.items()
        if name in names
        for curve, scores in _scores(arrays).items()
    ]
    own = records[records["run"].isin(names)]
    proved = own[(own["metric"] == "ceiling") & (own["fpr"] >= settings.from_fpr * (1 - 1e-9))]
    ceilings = [proved.assign(curve=proved["game"])] if settings.ceilings else []
    curves = over_seeds(pd.concat([*measured, *ceilings], ignore_index=True), ["run", "curve", "fpr"])
    areas = own[own["metric"] == "auc"]
    areas = areas.assign(curve=["mislabelled auc" if game == "mislabelled" else "auc" for game in areas["game"]])
    areas = over_seeds(areas, ["run", "curve"])
    data = pd.concat([curves, areas], ignore_index=True)
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(grid, grid, color="#999999", linewidth=0.8, zorder=1)
        labels = {}
        for run in runs:
            of = dict(iter(data[data["run"] == run.name].groupby("curve")))
            axes.plot(of["roc"]["fpr"], of["roc"]["mean"], color=shade[run])
            if (of["roc"]["seeds"] > 1).any():
                axes.fill_between(
                    of["roc"]["fpr"], of["roc"]["min"], of["roc"]["max"], color=shade[run], alpha=0.18, linewidth=0
                )
            if "mislabelled" in of:
                axes.plot(of["mislabelled"]["fpr"], of["mislabelled"]["mean"], color=shade[run], **MISLABELLED)
            for game, (_, line) in CEILINGS.items():
                if game in of:
                    axes.plot(of[game]["fpr"], of[game]["mean"], color=shade[run], **line)
            area = of["auc"]["mean"].item()
            labels[run] = f"{run.label(given.epsilons.get(run.name))}, area {area:.3f}"
            if "mislabelled auc" in of:
                labels[run] += f", of mislabelled images {of['mislabelled auc']['mean'].item():.3f}"
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(settings.from_fpr, 1)
        axes.set_ylim(settings.from_fpr, 1.1)
        axes.set_xlabel("false positive rate (test images taken for training images)")
        axes.set_ylabel("true positive rate")
        key = [*runs_key(labels, shade), ("guessing", Line2D([], [], color="#999999", linewidth=0.8))]
        if (data["curve"] == "mislabelled").any():
            key += [("mislabelled images", Line2D([], [], color="#555555", **MISLABELLED))]
        drawn = [game for game in CEILINGS if (data["curve"] == game).any()]
        if drawn:
            key += [("", None), ("no attack is above, for", None)]
            key += [(CEILINGS[game][0], Line2D([], [], color="#555555", **CEILINGS[game][1])) for game in drawn]
        legend(figure, key)
        head(figure, settings.title, given.note)
    return figure, data


def _scores(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curve -> scores of members and others."""
    found = {"roc": (-arrays["member_loss"], -arrays["loss"][arrays["other"]])}
    if "mislabelled_member_loss" in arrays:
        found["mislabelled"] = (-arrays["mislabelled_member_loss"], -arrays["mislabelled_other_loss"])
    return found
