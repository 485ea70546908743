"""Curvature of the cross-entropy around test images: eigenvalues of the input Hessian and what is left of them
without confidence (Fig 5c)."""

from collections.abc import Mapping, Sequence

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
from dprobust.showing import Given
from dprobust.statistics import Sample, estimate, ratio
from dprobust.style import GREY, PAPER, STYLE, colours, head, legend, runs_key, short, wrapped

QUANTILES = {"p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9}
STATISTICS = ("mean", "median")
MEAN = {"linestyle": "-", "marker": "o", "markersize": 3.5, "linewidth": 1.6}
MEDIAN = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
SMALL = {"fontsize": 8, "color": GREY}
FEW = 3
"""Runs whose bands can be told apart."""
CENTRED = {"ha": "center", "va": "center"}
BY = ["metric", "rank", "h"]


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Three panels: eigenvalues by rank, the largest one divided by p1 p2, finite-difference curvature over h.

    Of the records: rows with columns run, seed, index, metric ("eigenvalue" with its `rank`, "confidence_free",
    "finite_difference" with its `h`) and value. Images and seeds are pooled.

    Returns:
        The figure, and the numbers in it: metric, rank, h, run, n (values pooled), their mean and quantiles, the ratios
        of mean and median to the first run's, `ratio_of_means` and `ratio_of_medians` (geometric means over seeds),
        their 95 % intervals over images and seeds (`_low`, `_high`), and `paper_ratio`.
    """
    runs, records = given.runs, given.records["curvature"]
    records = records[records["run"].isin([run.name for run in runs])]
    data = _summary(records, runs, settings.paper_ratio)
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.8), layout="constrained")
        axes = figure.subplot_mosaic("aa;bc", height_ratios=(1.2, 1))
        _profile(axes["a"], data[data["metric"] == "eigenvalue"], runs, shade)
        for name, title, lines in (("a", "by rank", 1), ("b", "without confidence", 2), ("c", "over a distance", 2)):
            room = 6 + 11 * lines if len(runs) == 2 else None
            axes[name].set_title(f"({name}) {title}", loc="left", pad=room)
        _strips(axes["b"], records[records["metric"] == "confidence_free"], runs, shade)
        _finite_differences(axes["c"], data[data["metric"] == "finite_difference"], runs, shade)
        if len(runs) == 2:
            _ratios(axes, data[data["run"] == runs[1].name])
        grey = {"color": GREY}
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in runs}, shade, linewidth=5)
        key += [("", None), ("over images", None), ("mean (the paper's)", Line2D([], [], **MEAN, **grey))]
        key += [("median", Line2D([], [], **MEDIAN, **grey))]
        key += [("10 to 90 %", Patch(alpha=0.25, linewidth=0, **grey))] if len(runs) <= FEW else []
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


def _summary(records: pd.DataFrame, runs: Sequence[Run], paper_ratio: float | None) -> pd.DataFrame:
    groups = records.groupby([*BY, "run"], dropna=False, sort=False)["value"]
    table = groups.agg(["count", "mean"]).rename(columns={"count": "n"})
    for name, q in QUANTILES.items():
        table[name] = groups.quantile(q)
    table = _with_ratios(table.reset_index(), records, runs[0])
    if paper_ratio:
        table.loc[(table["rank"] == 1) & (table["run"] == runs[1].name), "paper_ratio"] = paper_ratio
    return table.astype({"rank": "Int64"})


def _with_ratios(table: pd.DataFrame, records: pd.DataFrame, first: Run) -> pd.DataFrame:
    """The table with the ratios to the first run, and the ends of their intervals."""
    arrays = {
        key: group.pivot_table(index="seed", columns="index", values="value").to_numpy()
        for key, group in records.fillna({"rank": 0, "h": 0}).groupby([*BY, "run"], sort=False)
    }
    wanted = [f"ratio_of_{name}s{end}" for name in STATISTICS for end in ("", "_low", "_high")]
    table = table.reindex(columns=[*table.columns, *wanted])
    for row in table[table["run"] != first.name].itertuples():
        key = (row.metric, *np.nan_to_num([row.rank, row.h]))
        for name in STATISTICS:
            found = estimate(Sample((arrays[*key, first.name], arrays[*key, row.run]), ratio, name, log=True))
            if np.isfinite(found.value) and found.value > 0:  # 0 / 0 is nothing to compare
                table.loc[row.Index, [f"ratio_of_{name}s{end}" for end in ("", "_low", "_high")]] = (
                    found.value,
                    *found.interval(),
                )
    return table


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


def _strips(axes: Axes, records: pd.DataFrame, runs: Sequence[Run], shade: Mapping[Run, str]) -> None:
    """A point an image, and boxes of the quartiles with whiskers from 10 to 90 %."""
    for x, run in enumerate(runs):
        values = records.loc[records["run"] == run.name, "value"].to_numpy()
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
    low, high = (curve[name].where(curve[name] > 0) for name in ("p10", "p90"))
    axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
    for edge in (low, high):
        axes.plot(x, edge, color=colour, linewidth=0.6, alpha=0.6)


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
