"""Histograms of the distance to the decision boundary, and its mean by several definitions (Figs 5a, 5b)."""

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dprobust.metrics.distances.display import Display
from dprobust.runs import Run
from dprobust.showing import Given, Outcomes
from dprobust.statistics import Sample, estimate, ratio, summary
from dprobust.style import GREY, PAPER, STYLE, colours, head, legend, runs_key, short, wrapped

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
FEW = 3
"""Runs whose histograms can be told apart when filled, and whose marks when in one line."""
HEAD_WIDTH = 11
"""Characters of a line above a column."""


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Histograms of the paper's absolute distance above, means and medians of every definition below.

    Of the records: the arrays norm, distance, signed, correct and, where DeepFool ran, index, deepfool_index and
    deepfool_distance. Infinite distances are counted and left out. Changes are relative to the first run.

    Returns:
        The figure, and the numbers in it: run, variant (a key of `VARIANT_NAMES`), statistic, for a bin of the
        histogram its ends `bin_low` and `bin_high`, and mean, low, high (95 % interval over seeds and images,
        `dprobust.statistics`), seeds. Statistics: `mean` and `median` of the finite distances, `change_of_mean` and
        `change_of_median` relative to the first run (of the ratio's geometric mean over seeds, images and seeds paired;
        nothing where a mean is 0 or less), `share` of the images in the bin; and without intervals, means over seeds of
        the numbers of finite distances, `images`, and of `infinite` ones.
    """
    runs = given.runs
    every = _distances(given, settings.norm)
    distances = {key: np.where(np.isfinite(values), values, np.nan) for key, values in every.items()}
    largest = max(np.nan_to_num(values).max() for (_, name), values in distances.items() if name == "absolute")
    edges = np.linspace(0, largest if largest > 0 else 1, BINS + 1)
    shares = pd.DataFrame(_histograms(distances, edges))
    statistics = pd.DataFrame(_statistics(distances, runs))
    counts = pd.DataFrame(_counts(every))
    data = pd.concat([_stated(settings, runs), statistics, counts, shares], ignore_index=True)
    data = data[["run", "variant", "statistic", "bin_low", "bin_high", "mean", "low", "high", "seeds"]]
    shade = colours(runs)
    variants = [variant for variant in VARIANT_NAMES if variant in set(data["variant"])]
    with mpl.rc_context(STYLE):
        rows = len(variants) * max(1, len(runs) / FEW)
        figure = Figure(figsize=(7.6, 4.0 + 0.24 * rows), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(2.6, 0.24 * rows))
        for run in runs:
            _bars(upper, shares[shares["run"] == run.name], edges, shade[run], few=len(runs) <= FEW)
        _rows(lower, data, runs, variants, shade)
        for run in runs:
            for axes in (upper, lower) if len(runs) <= FEW else (upper,):
                axes.axvline(_value(data, run, "absolute", "mean"), color=shade[run], linewidth=1, zorder=1.5)
        upper.set_ylabel(f"share of images ({BINS} bins)")
        upper.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        upper.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        means = data.loc[data["statistic"].isin(["mean", "median"]), ["mean", "low", "high"]]
        low, high = min(0, means.min(axis=None)), max(edges[-1], means.max(axis=None))
        upper.set_xlim(low - 0.03 * (high - low) * (low < 0), high + 0.03 * (high - low))
        lower.set_xlabel(NORM_NAMES[settings.norm])
        dot = {"linestyle": "", "color": GREY}
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in runs}, shade, linewidth=5)
        key += [("", None), ("over images", None)]
        key += [("mean (lines: Eq. 4, absolute)", Line2D([], [], **MEAN, **dot))]
        key += [("median", Line2D([], [], **MEDIAN, **dot))]
        key += [("95 % interval", Line2D([], [], color=GREY, linewidth=3, alpha=0.4))]
        key += [(VARIANT_NAMES["paper"], Line2D([], [], **PAPER))] if settings.paper_means else []
        legend(figure, key)
        head(figure, settings.title, "; ".join(filter(None, (given.note, _left_out(every, runs)))))
    return figure, data


def _distances(given: Given, norm: str) -> Outcomes:
    """(run, definition) -> distances (seeds, images); nan where the image does not count."""

    def of(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
        at, correct = arrays["norm"].tolist().index(norm), arrays["correct"]
        absolute, signed = (arrays[name][at].astype(np.float64) for name in ("distance", "signed"))
        found = {"absolute": absolute, "correct": np.where(correct, absolute, np.nan), "signed": signed}
        if "deepfool_index" in arrays:
            found["deepfool"] = np.full(len(absolute), np.nan)
            found["deepfool"][np.isin(arrays["index"], arrays["deepfool_index"])] = arrays["deepfool_distance"][at]
        return found

    return given.outcomes("distances", of)


def _counts(every: Outcomes) -> Iterator[dict[str, object]]:
    """Numbers of finite and infinite distances."""
    for (run, variant), values in every.items():
        for statistic, counted in (("images", np.isfinite(values)), ("infinite", np.isinf(values))):
            about = {"run": run, "variant": variant, "statistic": statistic}
            yield about | {"mean": counted.sum(axis=1).mean(), "seeds": len(values)}


def _left_out(every: Outcomes, runs: Sequence[Run]) -> str:
    """What to say of infinite distances; nothing if there are none."""
    names, parts = short(runs), []
    for variant in ("absolute", "deepfool"):
        found = [(names[run], np.isinf(every.get((run.name, variant), np.zeros(1))).sum()) for run in runs]
        told = ", ".join(f"{count} of {name}" for name, count in found if count)
        parts += [f"{VARIANT_NAMES[variant].partition(',')[0]}: {told}"] if told else []
    return f"infinite distances (no boundary found), left out, all seeds: {'; '.join(parts)}" if parts else ""


def _stated(settings: Display, runs: Sequence[Run]) -> pd.DataFrame:
    """The paper's means and their change, as rows of the data."""
    means, change = settings.paper_means, settings.paper_change
    rows = [(run, "mean", mean) for run, mean in zip(runs, means, strict=False)]
    rows += [(run, "change_of_mean", mean / means[0] - 1) for run, mean in zip(runs[1:], means[1:], strict=False)]
    rows += [(runs[1], "change_of_mean", change)] if change is not None else []
    return pd.DataFrame({"run": run.name, "variant": "paper", "statistic": name, "mean": v} for run, name, v in rows)


def _histograms(distances: Outcomes, edges: np.ndarray) -> Iterator[dict[str, object]]:
    """Share of the images in each bin of the absolute distance: a row a run and bin."""
    for (run, variant), values in distances.items():
        if variant != "absolute" or np.isnan(values).all():
            continue
        bins = np.clip(np.searchsorted(edges, values, "right") - 1, 0, BINS - 1)  # the last bin has both its ends
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            inside = np.where(np.isnan(values), np.nan, bins == i)
            about = {"run": run, "variant": variant, "statistic": "share", "bin_low": low, "bin_high": high}
            yield about | summary(inside, within=(0, 1))


def _statistics(distances: Outcomes, runs: Sequence[Run]) -> Iterator[dict[str, object]]:
    """Statistics of each run and definition, and their change relative to the first run: a row a value."""
    for (run, variant), values in distances.items():
        first = distances.get((runs[0].name, variant))
        for name in ("mean", "median"):
            if np.isnan(values).all(axis=1).any():
                continue
            about = {"run": run, "variant": variant}
            least = -np.inf if variant == "signed" else 0.0
            yield about | {"statistic": name} | summary(values, reduce=name, within=(least, np.inf))
            # Of and to a signed mean of 0 or less a change says nothing.
            if run != runs[0].name and first is not None:
                found = estimate(Sample((first, values), _positive_ratio, name, log=True))
                low, high = found.interval()
                if np.isfinite(found.value):
                    change = {"mean": found.value - 1, "low": low - 1, "high": high - 1, "seeds": found.seeds}
                    yield about | {"statistic": f"change_of_{name}"} | change


def _positive_ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`ratio` where both are above 0, else nan."""
    return np.where((first > 0) & (second > 0), ratio(first, second), np.nan)


def _value(data: pd.DataFrame, run: Run, variant: str, statistic: str, column: str = "mean") -> float:
    """One number of the figure; NaN if it is not there."""
    found = data[(data["run"] == run.name) & (data["variant"] == variant) & (data["statistic"] == statistic)][column]
    return found.item() if len(found) else np.nan


def _bars(axes: Axes, shares: pd.DataFrame, edges: np.ndarray, colour: str, few: bool) -> None:
    if shares.empty:  # no image has a finite distance
        return
    if few:
        axes.stairs(shares["mean"], edges, fill=True, color=colour, alpha=0.22)
    axes.stairs(shares["mean"], edges, color=colour, linewidth=1.3)
    if few:
        axes.stairs(shares["high"], edges, baseline=shares["low"], fill=True, color=colour, alpha=0.3)


def _rows(
    axes: Axes, data: pd.DataFrame, runs: Sequence[Run], variants: Sequence[str], shade: Mapping[Run, str]
) -> None:
    """A row a definition: means and medians as marks, and up to three columns of numbers beside it."""
    # Of many runs each has a line of its own within the row.
    lines = np.linspace(-0.3, 0.3, len(runs)) if len(runs) > FEW else np.zeros(len(runs))
    small = 0.6 if len(runs) > FEW else 1
    for y, variant in enumerate(variants):
        for run, line in zip(runs, y + lines, strict=True):
            mean, median = (_value(data, run, variant, statistic) for statistic in ("mean", "median"))
            if variant == "paper":
                axes.plot(mean, line, **PAPER | {"markeredgecolor": shade[run]})
                continue
            for statistic, width in (("mean", 3), ("median", 6)):
                ends = [_value(data, run, variant, statistic, end) for end in ("low", "high")]
                bar = {"linewidth": width * small, "alpha": 0.4 if statistic == "mean" else 0.2}
                axes.plot(ends, [line, line], color=shade[run], solid_capstyle="butt", **bar)
            axes.plot(median, line, color=shade[run], **MEDIAN | {"markersize": 10 * small**2})
            axes.plot(mean, line, color=shade[run], **MEAN | {"markersize": 6 * small, "markeredgecolor": "white"})
    if len(runs) <= len(COLUMNS):
        _columns(axes, data, runs, variants, shade)
    names = VARIANT_NAMES.copy()
    if "deepfool" in variants:
        every, some = (
            max(np.nansum([_value(data, run, name, count) for count in ("images", "infinite")]) for run in runs)
            for name in ("absolute", "deepfool")
        )
        names["deepfool"] += f", {some:.0f} images" if some < every else ""
    axes.set_yticks(range(len(variants)), [names[variant] for variant in variants])
    axes.set_ylim(len(variants) - 0.4, -0.6)
    if len(runs) > FEW:
        axes.hlines(
            np.arange(len(variants) - 1) + 0.5, 0, 1, "#CCCCCC", linewidth=0.6, transform=axes.get_yaxis_transform()
        )
        axes.grid(axis="y", visible=False)


def _columns(
    axes: Axes, data: pd.DataFrame, runs: Sequence[Run], variants: Sequence[str], shade: Mapping[Run, str]
) -> None:
    """The means as numbers beside the rows; of two runs also the second's change."""
    beside = {"ha": "right", "fontsize": 8, "transform": axes.get_yaxis_transform(), "in_layout": False}
    names = short(runs)
    heads = [(wrapped(names[run], HEAD_WIDTH), shade[run]) for run in runs]
    heads += [("change", "#333333")] if len(runs) == 2 else []
    for x, (name, colour) in zip(COLUMNS, heads, strict=False):
        axes.text(x, -0.62, name, color=colour, va="bottom", parse_math=False, **beside)
    # Three decimals, more where that is less than three digits of the largest mean.
    largest = data.loc[data["statistic"] == "mean", "mean"].abs().max()
    decimals = max(3, 3 - math.ceil(math.log10(largest)))
    for y, variant in enumerate(variants):
        texts = [f"{_value(data, run, variant, 'mean'):.{decimals}f}" for run in runs]
        texts += [f"{_value(data, runs[1], variant, 'change_of_mean'):+.1%}"] if len(runs) == 2 else []
        for x, text, (_, colour) in zip(COLUMNS, texts, heads, strict=False):
            axes.text(x, y, "" if "nan" in text else text.replace("-", "−"), color=colour, va="center", **beside)
        if len(runs) == 2:
            ends = [_value(data, runs[1], variant, "change_of_mean", end) for end in ("low", "high")]
            text = "" if np.isnan(ends).any() else "[{:+.0%}, {:+.0%}]".format(*ends).replace("-", "−")
            axes.text(COLUMNS[2], y + 0.42, text, color=GREY, va="center", **beside | {"fontsize": 6.5})
