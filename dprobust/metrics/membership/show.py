"""ROC of membership inference by the loss."""

from collections.abc import Iterator, Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dprobust.membership import auc, true_positives
from dprobust.metrics.membership.display import Display
from dprobust.showing import Given
from dprobust.statistics import bootstrapped
from dprobust.style import STYLE, colours, head, legend, over_seeds, runs_key

POINTS = 61
RESAMPLES = 200
AREAS = {"roc": "auc", "mislabelled": "mislabelled auc"}
"""Curve -> the name of the area under it."""
CEILINGS = {
    "added": ("one example added or left out", {"linestyle": (0, (5, 1.6)), "linewidth": 1.1}),
    "replaced": ("one example replaced by another", {"linestyle": (0, (1, 1.1)), "linewidth": 1.4}),
}
"""Game -> its words in the legend, its line."""
MISLABELLED = {"linestyle": (0, (4, 1.2, 1, 1.2)), "linewidth": 1.2}


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """ROC curves with bands of 95 % intervals over seeds and images, and ceilings of private runs.

    Of the records: the arrays `member_loss`, `loss` and `other`, and those of mislabelled images where they are there;
    rows of metric ceiling.

    Returns:
        The figure, and the numbers in it: run, curve ("roc"; "mislabelled", that of mislabelled training images;
        "added" or "replaced", ceilings; "auc", "mislabelled auc"), fpr, mean of the true positive rate or of the area
        under the curve, low and high (95 % interval over seeds and images, of members and others, each drawn by itself:
        `dprobust.statistics`; ceilings are exact), and seeds.
    """
    runs, records = given.runs, given.records["membership"]
    names = {run.name for run in runs}
    grid = np.logspace(np.log10(settings.from_fpr), 0, POINTS)
    measured: list[dict[str, object]] = []
    for run in runs:
        for_seeds = [_scores(of) for key, of in sorted(given.arrays.items(), key=_seed) if key[2] == run.name]
        for curve, area in AREAS.items():
            scores = [found[curve] for found in for_seeds if curve in found]
            if scores:
                measured += _roc({"run": run.name, "seeds": len(scores)}, scores, grid, curve, area)
    own = records[records["run"].isin(names)]
    proved = own[(own["metric"] == "ceiling") & (own["fpr"] >= settings.from_fpr * (1 - 1e-9))]
    ceilings = over_seeds(proved.assign(curve=proved["game"]), ["run", "curve", "fpr"]) if settings.ceilings else None
    columns = ["run", "curve", "fpr", "mean", "low", "high", "seeds"]
    data = pd.concat([pd.DataFrame(measured), ceilings], ignore_index=True)[columns]
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(grid, grid, color="#999999", linewidth=0.8, zorder=1)
        labels = {}
        for run in runs:
            of = dict(iter(data[data["run"] == run.name].groupby("curve")))
            axes.plot(of["roc"]["fpr"], of["roc"]["mean"], color=shade[run])
            _band(axes, of["roc"], shade[run], 0.18)
            if "mislabelled" in of:
                axes.plot(of["mislabelled"]["fpr"], of["mislabelled"]["mean"], color=shade[run], **MISLABELLED)
                _band(axes, of["mislabelled"], shade[run], 0.08)
            for game, (_, line) in CEILINGS.items():
                if game in of:
                    axes.plot(of[game]["fpr"], of[game]["mean"], color=shade[run], **line)
            labels[run] = f"{given.label(run)}, area {_area(of['auc'])}"
            if "mislabelled auc" in of:
                labels[run] += f", of mislabelled images {_area(of['mislabelled auc'])}"
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
        head(figure, settings.title, given.footnote)
    return figure, data


def _seed(item: tuple[tuple[str, str, str, int], object]) -> int:
    return item[0][3]


def _roc(
    about: dict[str, object], scores: list[tuple[np.ndarray, np.ndarray]], grid: np.ndarray, curve: str, area: str
) -> Iterator[dict[str, object]]:
    """The rows of a curve and of the area under it, from the scores of members and others of each seed."""

    def found(of_members: np.ndarray, of_others: np.ndarray) -> np.ndarray:
        """(seeds, points and area), of the images at these places."""
        drawn = [(members[of_members], others[of_others]) for members, others in scores]
        return np.array([[*true_positives(*both, grid), auc(*both).value] for both in drawn])

    generator, n = np.random.default_rng(0), len(scores[0][0])
    each = found(np.arange(n), np.arange(n))
    draws = np.array([found(*generator.integers(0, n, (2, n))) for _ in range(RESAMPLES)])
    for i, fpr in enumerate([*grid, np.nan]):
        known = bootstrapped(each[:, i], draws[:, :, i], n)
        low, high = known.interval()
        ends = {"low": max(low, 0.0), "high": min(high, 1.0)}
        yield about | {"curve": curve if i < len(grid) else area, "fpr": fpr, "mean": known.value} | ends


def _band(axes: Axes, curve: pd.DataFrame, colour: str, alpha: float) -> None:
    axes.fill_between(curve["fpr"], curve["low"], curve["high"], color=colour, alpha=alpha, linewidth=0)


def _area(row: pd.DataFrame) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*row[["mean", "low", "high"]].to_numpy()[0])


def _scores(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curve -> scores of members and others."""
    found = {"roc": (-arrays["member_loss"], -arrays["loss"][arrays["other"]])}
    if "mislabelled_member_loss" in arrays:
        found["mislabelled"] = (-arrays["mislabelled_member_loss"], -arrays["mislabelled_other_loss"])
    return found
