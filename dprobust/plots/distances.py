"""Histograms of the distance to the decision boundary, and its mean by several definitions (Figs 5a, 5b)."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.plots.style import PAPER, STYLE, colours, heading, label, legend, over_seeds
from dprobust.study import Run

NORM_NAMES = {
    "linf": "l∞ distance (largest change of a pixel, pixels in [0, 1])",
    "l2": "l2 distance (pixels in [0, 1])",
}
VARIANT_NAMES = {
    "paper": "stated by the paper",
    "absolute": "Eq. 4 (histogram)",
    "correct": "Eq. 4, correct only",
    "signed": "Eq. 4, signed",
    "deepfool": "DeepFool",
}
BINS = 60


def draw(
    records: pd.DataFrame,
    runs: Sequence[Run],
    settings: Mapping[str, Any],
    epsilons: Mapping[str, float],
    note: str = "",
) -> tuple[Figure, pd.DataFrame]:
    """Histograms of the paper's absolute distance above, means and medians of every definition below.

    Args:
        records: a row an image with columns run, seed, correct, and for the norm N: N, N_signed, deepfool_N (empty
            where DeepFool did not run). Infinite distances are left out.
        runs: the histograms; changes are relative to the first.
        settings: the figure's entry in the config: `title`; `norm`, "linf" or "l2"; `paper_means`, one a run.
        epsilons: run name -> privacy epsilon, for the legend.
        note: small print beside the title.

    Returns:
        The figure, and the numbers in it: run, variant (a key of `VARIANT_NAMES`), statistic, for a bin of the
        histogram its ends `low` and `high`, and mean, min, max of the value over seeds. Statistics: `mean`, `median`
        and `images` of the distances, `change_of_mean` and `change_of_median` relative to the first run, and `share`
        of the images in the bin.
    """
    distances = _distances(records, settings["norm"])
    edges = np.linspace(0, distances.loc[distances["variant"] == "absolute", "value"].max(), BINS + 1)
    shares = over_seeds(_histogram(distances, edges), ["run", "variant", "statistic", "low", "high"])
    stated = [
        {"run": run.name, "variant": "paper", "statistic": "mean", "mean": mean}
        for run, mean in zip(runs, settings["paper_means"], strict=False)
    ]
    statistics = over_seeds(_statistics(distances, runs[0]), ["run", "variant", "statistic"])
    data = pd.concat([pd.DataFrame(stated), statistics, shares], ignore_index=True)
    data = data[["run", "variant", "statistic", "low", "high", "mean", "min", "max", "seeds"]]
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.9), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
        for run in runs:
            _bars(upper, shares[shares["run"] == run.name], edges, shade[run])
        shown = [variant for variant in VARIANT_NAMES if variant in set(data["variant"])]
        _rows(lower, data, runs, shown, shade)
        for run in runs:
            for axes in (upper, lower):
                axes.axvline(_value(data, run, "absolute", "mean"), color=shade[run], linewidth=1, zorder=1.5)
        heading(upper, settings["title"], note)
        upper.set_ylabel(f"share of images ({BINS} bins)")
        upper.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        upper.set_xlim(0, edges[-1])
        lower.set_xlabel(NORM_NAMES[settings["norm"]])
        dot = {"linestyle": "", "color": "#555555"}
        key = [("trained with", None)]
        key += [(label(run, epsilons.get(run.name)), Line2D([], [], color=shade[run], linewidth=5)) for run in runs]
        key += [("", None), ("over images", None)]
        key += [("mean (line: of the histogram)", Line2D([], [], marker="o", markersize=5, **dot))]
        key += [("median", Line2D([], [], marker="|", markersize=9, markeredgewidth=1.6, **dot))]
        key += [(VARIANT_NAMES["paper"], Line2D([], [], **PAPER))] if stated else []
        legend(figure, key)
    return figure, data


def _distances(records: pd.DataFrame, norm: str) -> pd.DataFrame:
    """Finite distances of every definition, a row an image and definition: run, seed, variant, value."""
    columns = {
        "absolute": records[norm],
        "correct": records[norm].where(records["correct"]),
        "signed": records[f"{norm}_signed"],
        "deepfool": records[f"deepfool_{norm}"],
    }
    about = records[["run", "seed"]]
    distances = pd.concat([about.assign(variant=name, value=values) for name, values in columns.items()])
    return distances[np.isfinite(distances["value"])]


def _histogram(distances: pd.DataFrame, edges: np.ndarray) -> pd.DataFrame:
    """Share of the images of a run and seed in each bin of the absolute distance."""
    parts = []
    for (run, seed), group in distances[distances["variant"] == "absolute"].groupby(["run", "seed"], sort=False):
        shares = np.histogram(group["value"], edges)[0] / len(group)
        parts.append(pd.DataFrame({"low": edges[:-1], "high": edges[1:], "value": shares}).assign(run=run, seed=seed))
    return pd.concat(parts).assign(variant="absolute", statistic="share")


def _statistics(distances: pd.DataFrame, first: Run) -> pd.DataFrame:
    """Statistics of each run, seed and variant, and their change relative to the first run: a row a value."""
    by = ["run", "variant", "seed"]
    table = distances.groupby(by, sort=False)["value"].agg(["mean", "median", "count"])
    table = table.rename(columns={"count": "images"})
    for name in ("mean", "median"):
        changes = table[name].groupby(by[1:], group_keys=False).transform(lambda v: v / v.get(first.name, np.nan) - 1)
        table[f"change_of_{name}"] = changes.drop(first.name, level="run")
    long = table.reset_index().melt(by, var_name="statistic")
    return long.dropna(subset="value")


def _value(data: pd.DataFrame, run: Run, variant: str, statistic: str, column: str = "mean") -> float:
    """One number of the figure; NaN if it is not there."""
    found = data[(data["run"] == run.name) & (data["variant"] == variant) & (data["statistic"] == statistic)][column]
    return found.item() if len(found) else np.nan


def _bars(axes: Axes, shares: pd.DataFrame, edges: np.ndarray, colour: str) -> None:
    axes.stairs(shares["mean"], edges, fill=True, color=colour, alpha=0.22)
    axes.stairs(shares["mean"], edges, color=colour, linewidth=1.3)
    if (shares["seeds"] > 1).any():
        axes.stairs(shares["max"], edges, baseline=shares["min"], fill=True, color=colour, alpha=0.3)


def _rows(
    axes: Axes, data: pd.DataFrame, runs: Sequence[Run], variants: Sequence[str], shade: Mapping[Run, str]
) -> None:
    """A row a definition: means and medians as marks, the means and the second run's change as numbers beside."""
    beside = {"va": "center", "ha": "right", "fontsize": 8, "transform": axes.get_yaxis_transform(), "in_layout": False}
    for y, variant in enumerate(variants):
        for run in runs:
            mean, median = (_value(data, run, variant, statistic) for statistic in ("mean", "median"))
            if variant == "paper":
                axes.plot(mean, y, **PAPER | {"markeredgecolor": shade[run]})
                continue
            ends = [_value(data, run, variant, "mean", end) for end in ("min", "max")]
            axes.plot(ends, [y, y], color=shade[run], linewidth=3, alpha=0.4, solid_capstyle="butt")
            axes.plot(mean, y, marker="o", markersize=5, color=shade[run])
            axes.plot(median, y, marker="|", markersize=9, markeredgewidth=1.6, color=shade[run])
    if len(runs) == 2:
        names = [("SGD" if not run.private else "DP-SGD", shade[run]) for run in runs] + [("change", "#333333")]
        for x, (name, colour) in zip((1.12, 1.26, 1.41), names, strict=True):
            axes.text(x, -0.95, name, color=colour, **beside)
        for y, variant in enumerate(variants):
            means = [_value(data, run, variant, "mean") for run in runs]
            texts = [*(f"{mean:.3f}" for mean in means), f"{means[1] / means[0] - 1:+.1%}".replace("-", "−")]
            for x, text, (_, colour) in zip((1.12, 1.26, 1.41), texts, names, strict=True):
                axes.text(x, y, text, color=colour, **beside)
    axes.set_yticks(range(len(variants)), [VARIANT_NAMES[variant] for variant in variants])
    axes.set_ylim(len(variants) - 0.4, -0.6)
