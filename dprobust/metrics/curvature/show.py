"""Curvature of the cross-entropy around test images: eigenvalues of the input Hessian and what is left of them
without confidence (Fig 5c)."""

from collections.abc import Hashable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from dprobust.metrics.curvature.display import Display
from dprobust.runs import Run
from dprobust.showing import Given, Outcomes
from dprobust.statistics import Estimate, Sample, estimate, ratio, same
from dprobust.style import GREY, PAPER, STYLE, colours, head, legend, runs_key, short, wrapped

QUANTILES = {"p10": 0.1, "p25": 0.25, "p75": 0.75, "p90": 0.9}
"""Over images and seeds: how much images differ, no interval."""
STATISTICS = ("mean", "median")
MEAN = {"linestyle": "-", "marker": "o", "markersize": 3.5, "linewidth": 1.6}
MEDIAN = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
SMALL = {"fontsize": 8, "color": GREY}
FEW = 3
"""Runs whose bands and quantiles can be told apart."""
QUANTILE = {"linestyle": (0, (1, 1.5)), "linewidth": 0.9}
CENTRED = {"ha": "center", "va": "center"}
BY = ["metric", "rank", "h"]


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Three panels: eigenvalues by rank, the largest one divided by p1 p2, finite-difference curvature over h.

    Of the records: the arrays eigenvalues, confidence_free, finite_difference and h.

    Returns:
        The figure, and the numbers in it: metric ("eigenvalue" with its `rank`, "confidence_free", "finite_difference"
        with its `h`), rank, h, run, n (values), seeds; mean and median over images, geometric means over seeds, with
        `mean_low` to `median_high`, their 95 % intervals over seeds and images (`dprobust.statistics`); quantiles of
        images and seeds pooled, p10 to p90; `ratio_of_means` and `ratio_of_medians` to the first run's (geometric means
        over seeds) and their intervals, likewise; and `paper_ratio`.
    """
    runs = given.runs
    values = given.outcomes("curvature", _values)
    data = _summary(values, runs, settings.paper_ratio)
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.8), layout="constrained")
        axes = figure.subplot_mosaic("aa;bc", height_ratios=(1.2, 1))
        _profile(axes["a"], data[data["metric"] == "eigenvalue"], runs, shade)
        for name, title, lines in (("a", "by rank", 1), ("b", "without confidence", 2), ("c", "over a distance", 2)):
            room = 6 + 11 * lines if len(runs) == 2 else None
            axes[name].set_title(f"({name}) {title}", loc="left", pad=room)
        _strips(axes["b"], values, data[data["metric"] == "confidence_free"], runs, shade)
        _finite_differences(axes["c"], data[data["metric"] == "finite_difference"], runs, shade)
        if len(runs) == 2:
            _ratios(axes, data[data["run"] == runs[1].name])
        grey = {"color": GREY}
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in runs}, shade, linewidth=5)
        key += [("", None), ("over images", None), ("mean (the paper's)", Line2D([], [], **MEAN, **grey))]
        key += [("median", Line2D([], [], **MEDIAN, **grey))]
        if len(runs) <= FEW:
            key += [("95 % intervals of both", Patch(alpha=0.25, linewidth=0, **grey))]
            key += [("10 and 90 % of the images", Line2D([], [], **QUANTILE, **grey))]
        names = short(runs)
        if settings.paper_ratio:
            stated = data[data["paper_ratio"].notna()]
            reference = data.loc[(data["metric"] == "eigenvalue") & (data["run"] == runs[0].name), "mean"].iloc[0]
            axes["a"].plot(1, (stated["paper_ratio"] * reference).item(), zorder=3, **PAPER)
            key += [("", None), ("stated by the paper", None)]
            key += [(f"{settings.paper_ratio:g} × mean of {names[runs[0]]}", Line2D([], [], **PAPER))]
        if len(runs) == 2:
            key += [("", None), (f"factors ×: {names[runs[1]]} ÷ {names[runs[0]]},\n95 % intervals in brackets", None)]
        legend(figure, key)
        head(figure, settings.title, given.note)
    return figure, data


def _values(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """(metric, rank, h) -> of each image; rank and h None where there is none."""
    found: dict[Hashable, np.ndarray] = {
        ("eigenvalue", rank, None): values for rank, values in enumerate(arrays["eigenvalues"], 1)
    }
    found["confidence_free", None, None] = arrays["confidence_free"]
    by_h = zip(arrays["h"].tolist(), arrays["finite_difference"], strict=True)
    return found | {("finite_difference", None, h): values for h, values in by_h}


def _summary(values: Outcomes, runs: Sequence[Run], paper_ratio: float | None) -> pd.DataFrame:
    rows = []
    for (run, key), of_run in values.items():
        row = dict(zip(BY, key, strict=True)) | {"run": run, "n": of_run.size, "seeds": len(of_run)}
        row |= dict(zip(QUANTILES, np.quantile(of_run, list(QUANTILES.values())), strict=True))
        for name in STATISTICS:
            row |= _ends(name, estimate(Sample((of_run,), same, name, log=True)))
            if run != runs[0].name:
                both = Sample((values[runs[0].name, key], of_run), ratio, name, log=True)
                row |= _ends(f"ratio_of_{name}s", estimate(both))
        rows.append(row)
    ratios = [f"ratio_of_{name}s{end}" for name in STATISTICS for end in ("", "_low", "_high")]
    order = [*BY, "run", "n", "seeds", *(f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high"))]
    table = pd.DataFrame(rows).reindex(columns=[*order, *QUANTILES, *ratios])
    if paper_ratio:
        table.loc[(table["rank"] == 1) & (table["run"] == runs[1].name), "paper_ratio"] = paper_ratio
    return table.astype({"rank": "Int64"})


def _ends(name: str, found: Estimate) -> dict[str, float]:
    """A value with its ends; of 0 for all images the value alone, of 0 / 0 nothing."""
    ends = found.interval() if found.value > 0 else (np.nan, np.nan)
    return dict(zip((name, f"{name}_low", f"{name}_high"), (found.value, *ends), strict=True))


def _profile(axes: Axes, data: pd.DataFrame, runs: Sequence[Run], shade: Mapping[Run, str]) -> None:
    for run in runs:
        curve = data[(data["run"] == run.name)].sort_values("rank")
        _curves(axes, curve["rank"].astype(int), curve, shade[run], mean=True, band=len(runs) <= FEW)
    rank = data.loc[data["mean"] > 0, "rank"].max()
    last = data["rank"].max()
    axes.set_xlim(0.6, last + 0.4)
    if rank < last:
        axes.axvspan(rank + 0.5, last + 0.4, color="#EFEFEF", zorder=0)
        wide = last - rank > 3
        text = (
            f"exactly 0:\nrank at most {rank},\n"
            + ("the network is\n" if wide else "the network is ")
            + "piecewise linear"
        )
        turned = {"rotation": 0 if wide else 90}
        axes.text(
            (rank + last + 0.9) / 2, 0.5, text, transform=axes.get_xaxis_transform(), **CENTRED, **SMALL, **turned
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    axes.set(xlabel="rank k", ylabel="eigenvalue λₖ of the input Hessian")


def _strips(axes: Axes, found: Outcomes, data: pd.DataFrame, runs: Sequence[Run], shade: Mapping[Run, str]) -> None:
    """A point an image, boxes of the quartiles with whiskers from 10 to 90 %, and beside them the median's interval."""
    medians = data.set_index("run")
    for x, run in enumerate(runs):
        values = found[run.name, ("confidence_free", None, None)].ravel()
        ends = medians.loc[run.name, ["median_low", "median_high"]]
        axes.plot([x + 0.4, x + 0.4], ends, color=shade[run], linewidth=4, alpha=0.4, solid_capstyle="butt")
        # Spread by the golden ratio: even, and the same each time.
        spread = 0.36 * ((np.arange(len(values)) * 0.6180339887) % 1 - 0.5)
        axes.plot(x - 0.22 + spread, values, ".", color=shade[run], markersize=4, markeredgewidth=0, alpha=0.55)
        line = {"color": shade[run], "linewidth": 1.2}
        parts = {f"{part}props": line for part in ("box", "whisker", "cap")}
        axes.boxplot(
            values,
            positions=[x + 0.2],
            widths=0.26,
            whis=(10, 90),
            showfliers=False,
            manage_ticks=False,
            medianprops=line | {"linewidth": 2.2},
            **parts,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    # Turned where there is no room side by side.
    turned = {"rotation": 90} if len(runs) > FEW else {}
    names = [wrapped(name, 22 if turned else 12) for name in short(runs).values()]
    for text in axes.set_xticks(range(len(runs)), names, **turned):
        text.label1.set_parse_math(False)
    axes.set_xlim(-0.6, len(runs) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("λ₁ / (p₁ p₂)")


def _finite_differences(axes: Axes, data: pd.DataFrame, runs: Sequence[Run], shade: Mapping[Run, str]) -> None:
    for run in runs:
        curve = data[data["run"] == run.name].sort_values("h")
        _curves(axes, curve["h"], curve, shade[run], mean=False, band=len(runs) <= FEW)
    axes.set_xscale("log")
    h = sorted(data["h"].unique())
    axes.set_xticks(h, [f"{value:g}" for value in h])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="h (l2 distance)", ylabel="‖∇L(x + h z) − ∇L(x)‖₂ / h")


def _curves(axes: Axes, x: pd.Series, curve: pd.DataFrame, colour: str, mean: bool, band: bool) -> None:
    """Mean, median and, where there is room, band on a log axis, which has no place for 0."""
    axes.set_yscale("log")
    if mean:
        axes.plot(x, curve["mean"].where(curve["mean"] > 0), color=colour, **MEAN)
    axes.plot(x, curve["median"].where(curve["median"] > 0), color=colour, **MEDIAN)
    if not band:
        return
    for name in STATISTICS if mean else ("median",):
        axes.fill_between(x, curve[f"{name}_low"], curve[f"{name}_high"], color=colour, alpha=0.2, linewidth=0)
    for name in ("p10", "p90"):
        axes.plot(x, curve[name].where(curve[name] > 0), color=colour, **QUANTILE)


def _ratios(axes: Mapping[str, Axes], second: pd.DataFrame) -> None:
    """How many times the first model's the second model's values are, with intervals, in each panel."""
    largest = second[second["rank"] == 1].iloc[0]
    free = second[second["metric"] == "confidence_free"].iloc[0]
    ends = second[second["metric"] == "finite_difference"].sort_values("h").iloc[[0, -1]].drop_duplicates("h")
    for name, text in (
        ("a", f"λ₁: mean {_factor(largest, 'mean')}, median {_factor(largest, 'median')}"),
        ("b", f"median {_factor(free, 'median')}"),
        ("c", "median " + ",\n".join(f"{_factor(end, 'median')} (h {end['h']:g})" for _, end in ends.iterrows())),
    ):
        axes[name].text(0, 1.02, text, ha="left", va="bottom", transform=axes[name].transAxes, **SMALL)


def _factor(row: pd.Series, statistic: str) -> str:
    """As text: × 3.3 [2.1, 6.0]."""
    ratio, low, high = (row[f"ratio_of_{statistic}s{end}"] for end in ("", "_low", "_high"))
    return f"× {_digits(ratio)} [{_digits(low)}, {_digits(high)}]" if np.isfinite(ratio) else "× –"


def _digits(value: float) -> str:
    """Two digits, without an exponent where it is not needed: 0.034, 2.1, 6.0, 26, 440."""
    rounded = float(f"{value:.1e}")
    if not 1e-3 <= rounded < 1e4:
        return f"{rounded:.1e}" if np.isfinite(rounded) else "∞"
    return f"{rounded:.0f}" if rounded >= 10 else f"{rounded:#.2g}"
