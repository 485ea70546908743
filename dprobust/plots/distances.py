"""Histograms of the distance to the decision boundary, and its mean by several definitions (Figs 5a, 5b)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dprobust.plots.style import PAPER, STYLE, colours, heading, label, legend, over_seeds
from dprobust.study import Run

NORM_NAMES = {
    "linf": "l∞ distance (largest change of a pixel, pixels in [0, 1])",
    "l2": "l2 distance (pixels in [0, 1])",
}
VARIANT_NAMES = {
    "paper": "stated by the paper",
    "absolute": "Eq. 4, absolute",
    "correct": "Eq. 4, correct only",
    "signed": "Eq. 4, signed",
    "deepfool": "DeepFool",
}
BINS = 50
MEAN = {"marker": "o", "markersize": 6, "markeredgewidth": 0.7}
MEDIAN = {"marker": "|", "markersize": 10, "markeredgewidth": 1.6}
COLUMNS = (1.13, 1.28, 1.43)
"""Right ends of the columns of numbers beside the rows, in widths of the axes."""


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
        settings: the figure's entry in the config: `title`; `norm`, "linf" or "l2"; what the paper states:
            `paper_means`, one a run, or `paper_change`, of the mean from the first run to the second, relative or None.
        epsilons: run name -> privacy epsilon, for the legend.
        note: small print beside the title.

    Returns:
        The figure, and the numbers in it: run, variant (a key of `VARIANT_NAMES`), statistic, for a bin of the
        histogram its ends `low` and `high`, and mean, min, max of the value over seeds. Statistics: `mean`, `median`
        and `images` of the distances, `change_of_mean` and `change_of_median` relative to the first run (of the same
        seed), and `share` of the images in the bin.
    """
    shown = records[records["run"].isin([run.name for run in runs])]
    distances = _distances(shown, settings["norm"])
    edges = np.linspace(0, distances.loc[distances["variant"] == "absolute", "value"].max(), BINS + 1)
    shares = over_seeds(_histogram(distances, edges), ["run", "variant", "statistic", "low", "high"])
    statistics = over_seeds(_statistics(distances, runs[0]), ["run", "variant", "statistic"])
    data = pd.concat([_stated(settings, runs), statistics, shares], ignore_index=True)
    data = data[["run", "variant", "statistic", "low", "high", "mean", "min", "max", "seeds"]]
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.9), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
        for run in runs:
            _bars(upper, shares[shares["run"] == run.name], edges, shade[run])
        variants = [variant for variant in VARIANT_NAMES if variant in set(data["variant"])]
        _rows(lower, data, runs, variants, shade)
        for run in runs:
            for axes in (upper, lower):
                axes.axvline(_value(data, run, "absolute", "mean"), color=shade[run], linewidth=1, zorder=1.5)
        heading(upper, settings["title"], note)
        upper.set_ylabel(f"share of images ({BINS} bins)")
        upper.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        upper.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        means = data.loc[data["statistic"] == "mean", "mean"]
        upper.set_xlim(min(0, 1.05 * means.min()), max(edges[-1], 1.05 * means.max()))
        lower.set_xlabel(NORM_NAMES[settings["norm"]])
        dot = {"linestyle": "", "color": "#555555"}
        key = [("trained with", None)]
        key += [(label(run, epsilons.get(run.name)), Line2D([], [], color=shade[run], linewidth=5)) for run in runs]
        key += [("", None), ("over images", None)]
        key += [("mean (lines: Eq. 4, absolute)", Line2D([], [], **MEAN, **dot))]
        key += [("median", Line2D([], [], **MEDIAN, **dot))]
        key += [(VARIANT_NAMES["paper"], Line2D([], [], **PAPER))] if settings["paper_means"] else []
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


def _stated(settings: Mapping[str, Any], runs: Sequence[Run]) -> pd.DataFrame:
    """The paper's means and their change, as rows of the data."""
    means, change = settings["paper_means"], settings["paper_change"]
    rows = [(run, "mean", mean) for run, mean in zip(runs, means, strict=False)]
    rows += [(run, "change_of_mean", mean / means[0] - 1) for run, mean in zip(runs[1:], means[1:], strict=False)]
    rows += [(runs[1], "change_of_mean", change)] if change is not None else []
    return pd.DataFrame({"run": run.name, "variant": "paper", "statistic": name, "mean": v} for run, name, v in rows)


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
    wide = table[["mean", "median"]].unstack("run")
    for name in ("mean", "median"):
        # Relative to a signed mean of 0 or less a change says nothing.
        reference = wide[name][first.name].where(lambda value: value > 0)
        changes = wide[name].drop(columns=first.name).div(reference, axis=0) - 1
        table[f"change_of_{name}"] = changes.stack().reorder_levels(by)
    return table.reset_index().melt(by, var_name="statistic").dropna(subset="value")


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
            axes.plot(median, y, color=shade[run], **MEDIAN)
            axes.plot(mean, y, color=shade[run], **MEAN | {"markeredgecolor": "white"})
    if len(runs) == 2:
        heads = [("SGD" if not run.private else "DP-SGD", shade[run]) for run in runs] + [("change", "#333333")]
        for x, (name, colour) in zip(COLUMNS, heads, strict=True):
            axes.text(x, -0.95, name, color=colour, **beside)
        # Three decimals, more where that is less than three digits of the largest mean.
        largest = data.loc[data["statistic"] == "mean", "mean"].abs().max()
        decimals = max(3, 3 - math.ceil(math.log10(largest)))
        for y, variant in enumerate(variants):
            texts = [f"{_value(data, run, variant, 'mean'):.{decimals}f}" for run in runs]
            texts.append(f"{_value(data, runs[1], variant, 'change_of_mean'):+.1%}")
            for x, text, (_, colour) in zip(COLUMNS, texts, heads, strict=True):
                axes.text(x, y, "" if "nan" in text else text.replace("-", "−"), color=colour, **beside)
    names = VARIANT_NAMES.copy()
    if "deepfool" in variants:
        every, some = (_value(data, runs[0], variant, "images") for variant in ("absolute", "deepfool"))
        names["deepfool"] += f", {some:.0f} images" if some < every else ""
    axes.set_yticks(range(len(variants)), [names[variant] for variant in variants])
    axes.set_ylim(len(variants) - 0.4, -0.6)
