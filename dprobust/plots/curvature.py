"""Curvature of the cross-entropy around test images: eigenvalues of the input Hessian and what is left of them
without confidence (Fig 5c)."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from dprobust.plots.style import PAPER, STYLE, colours, heading, label, legend
from dprobust.study import Run

QUANTILES = {"p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9}
MEAN = {"linestyle": "-", "marker": "o", "markersize": 3.5, "linewidth": 1.6}
MEDIAN = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
SMALL = {"fontsize": 8, "color": "#555555"}
CENTRED = {"ha": "center", "va": "center"}


def draw(
    records: pd.DataFrame,
    runs: Sequence[Run],
    settings: Mapping[str, Any],
    epsilons: Mapping[str, float],
    note: str = "",
) -> tuple[Figure, pd.DataFrame]:
    """Three panels: eigenvalues by rank, the largest one divided by p1 p2, finite-difference curvature over h.

    Args:
        records: rows with columns run, seed, index, metric ("eigenvalue" with its `rank`, "confidence_free",
            "finite_difference" with its `h`) and value. Images and seeds are pooled.
        runs: the models; ratios are those of the others to the first.
        settings: the figure's entry in the config: `title`; `paper_ratio`, the ratio of the largest eigenvalues of the
            first two runs that the paper states, or None.
        epsilons: run name -> privacy epsilon, for the legend.
        note: small print beside the title.

    Returns:
        The figure, and the numbers in it: metric, rank, h, run, n (values pooled), their mean and quantiles,
        `ratio_of_means` and `ratio_of_medians` to the first run, and `paper_ratio`.
    """
    records = records[records["run"].isin([run.name for run in runs])]
    data = _summary(records, runs, settings["paper_ratio"])
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.8), layout="constrained")
        axes = figure.subplot_mosaic("aa;bc", height_ratios=(1.2, 1))
        _profile(axes["a"], data[data["metric"] == "eigenvalue"], runs, shade)
        axes["b"].set_title("(b) without confidence", loc="left", pad=18)
        axes["c"].set_title("(c) over a finite distance", loc="left", pad=18)
        _strips(axes["b"], records[records["metric"] == "confidence_free"], runs, shade)
        _finite_differences(axes["c"], data[data["metric"] == "finite_difference"], runs, shade)
        heading(axes["a"], f"(a) {settings['title']}".rstrip(), note)
        if len(runs) == 2:
            _ratios(axes, data[data["run"] == runs[1].name])
        grey = {"color": "#555555"}
        key = [("trained with", None)]
        key += [(label(run, epsilons.get(run.name)), Line2D([], [], color=shade[run], linewidth=5)) for run in runs]
        key += [("", None), ("over images", None), ("mean (the paper's)", Line2D([], [], **MEAN, **grey))]
        key += [("median", Line2D([], [], **MEDIAN, **grey)), ("10 to 90 %", Patch(alpha=0.25, linewidth=0, **grey))]
        if settings["paper_ratio"]:
            stated = data[data["paper_ratio"].notna()]
            reference = data.loc[(data["metric"] == "eigenvalue") & (data["run"] == runs[0].name), "mean"].iloc[0]
            axes["a"].plot(1, (stated["paper_ratio"] * reference).item(), zorder=3, **PAPER)
            key += [("", None), ("stated by the paper", None)]
            key += [(f"{settings['paper_ratio']:g} × {label(runs[0])}'s mean", Line2D([], [], **PAPER))]
        if len(runs) == 2:
            names = "DP-SGD ÷ SGD" if runs[1].private and not runs[0].private else "second ÷ first"
            key += [("", None), (f"factors ×: {names}", None)]
        legend(figure, key)
    return figure, data


def _summary(records: pd.DataFrame, runs: Sequence[Run], paper_ratio: float | None) -> pd.DataFrame:
    by = ["metric", "rank", "h"]
    groups = records.groupby([*by, "run"], dropna=False, sort=False)["value"]
    table = groups.agg(["count", "mean"]).rename(columns={"count": "n"})
    for name, q in QUANTILES.items():
        table[name] = groups.quantile(q)
    table = table.reset_index()
    first = table[table["run"] == runs[0].name].drop(columns=["run"])
    table = table.merge(first[[*by, "mean", "median"]], on=by, suffixes=("", "_first"))
    others = table["run"] != runs[0].name
    for name in ("mean", "median"):
        # 0 / 0 is nothing to compare
        ratio = (table[name] / table.pop(f"{name}_first")).where(others)
        table[f"ratio_of_{name}s"] = ratio.where(np.isfinite(ratio))
    if paper_ratio:
        table.loc[(table["rank"] == 1) & (table["run"] == runs[1].name), "paper_ratio"] = paper_ratio
    return table.astype({"rank": "Int64"})


def _profile(axes: Axes, data: pd.DataFrame, runs: Sequence[Run], shade: Mapping[Run, str]) -> None:
    for run in runs:
        curve = data[(data["run"] == run.name)].sort_values("rank")
        _curves(axes, curve["rank"].astype(int), curve, shade[run], mean=True)
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
    names = ["SGD" if not run.private else f"σ = {run.sigma:g}\nC = {run.clip:g}" for run in runs]
    axes.set_xticks(range(len(runs)), names)
    axes.set_xlim(-0.6, len(runs) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("λ₁ / (p₁ p₂)")


def _finite_differences(axes: Axes, data: pd.DataFrame, runs: Sequence[Run], shade: Mapping[Run, str]) -> None:
    for run in runs:
        curve = data[data["run"] == run.name].sort_values("h")
        _curves(axes, curve["h"], curve, shade[run], mean=False)
    axes.set_xscale("log")
    h = sorted(data["h"].unique())
    axes.set_xticks(h, [f"{value:g}" for value in h])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="h (l2 distance)", ylabel="‖∇L(x + h z) − ∇L(x)‖₂ / h")


def _curves(axes: Axes, x: pd.Series, curve: pd.DataFrame, colour: str, mean: bool) -> None:
    """Mean, median and band on a log axis, which has no place for 0."""
    axes.set_yscale("log")
    if mean:
        axes.plot(x, curve["mean"].where(curve["mean"] > 0), color=colour, **MEAN)
    axes.plot(x, curve["median"].where(curve["median"] > 0), color=colour, **MEDIAN)
    low, high = (curve[name].where(curve[name] > 0) for name in ("p10", "p90"))
    axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
    for edge in (low, high):
        axes.plot(x, edge, color=colour, linewidth=0.6, alpha=0.6)


def _ratios(axes: Mapping[str, Axes], second: pd.DataFrame) -> None:
    """How many times the first model's the second model's values are, in each panel."""
    largest = second[second["rank"] == 1].iloc[0]
    free = second[second["metric"] == "confidence_free"].iloc[0]
    ends = second[second["metric"] == "finite_difference"].sort_values("h").iloc[[0, -1]]
    for name, text, x, y in (
        ("a", f"λ₁: mean × {largest['ratio_of_means']:.3g}, median × {largest['ratio_of_medians']:.3g}", 0.59, 0.93),
        ("b", f"median × {free['ratio_of_medians']:.3g}", 1, 1.02),
        ("c", "median " + ", ".join(f"× {e.ratio_of_medians:.3g} (h {e.h:g})" for e in ends.itertuples()), 1, 1.02),
    ):
        axes[name].text(x, y, text, ha="right", va="bottom", transform=axes[name].transAxes, **SMALL)
