"""Accuracy against the size of an FGSM perturbation (Figs 2, 3a-c, 7)."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.plots.style import PAPER, STYLE, colours, heading, label, legend, over_seeds
from dprobust.study import Run

LOSS_NAMES = {
    "ce": "float32 cross-entropy (the paper's)",
    "ce_stable": "cross-entropy without round-off",
    "margin": "margin loss",
}
SOLID = {"linestyle": "-", "linewidth": 1.7}
DASHED = {"linestyle": (0, (4, 2)), "linewidth": 0.9}


def draw(
    records: pd.DataFrame,
    runs: Sequence[Run],
    settings: Mapping[str, Any],
    epsilons: Mapping[str, float],
    note: str = "",
) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves with bands over seeds.

    Args:
        records: rows of metric "accuracy" with columns run, seed, loss, eps, value.
        runs: the curves, in the order of the legend.
        settings: the figure's entry in the config: `title`; `losses`, that of the solid curves and, if there are two,
            that of the thin dashed ones; `paper_gap`, (eps, percentage points) gaps between the first two runs that the
            paper states: with any, a lower panel shows this gap; `relative`, whether to divide each model's accuracy by
            its accuracy at eps 0.
        epsilons: run name -> privacy epsilon, for the legend; a run without one is shown without.
        note: small print beside the title, for example what is provisional about the numbers.

    Returns:
        The figure, and the numbers in it: run, loss, eps, mean, min, max, seeds.
    """
    losses, paper_gap = settings["losses"], settings["paper_gap"]
    names = [run.name for run in runs]
    shown = records[(records["metric"] == "accuracy") & records["run"].isin(names) & records["loss"].isin(losses)]
    if settings["relative"]:
        clean = shown[shown["eps"] == 0].set_index(["run", "seed", "loss"])["value"]
        index = pd.MultiIndex.from_frame(shown[["run", "seed", "loss"]])
        shown = shown.assign(value=shown["value"] / clean.loc[index].to_numpy())
    curves = over_seeds(shown, ["run", "loss", "eps"])
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.2 if paper_gap else 3.8), layout="constrained")
        if paper_gap:
            axes, lower = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
        else:
            axes = lower = figure.subplots()
        styles = dict(zip(losses, (SOLID, DASHED), strict=False))
        for run in runs:
            for loss, style in styles.items():
                _band(axes, curves[(curves["run"] == run.name) & (curves["loss"] == loss)], shade[run], style)
        axes.set(
            ylabel="accuracy / accuracy without attack" if settings["relative"] else "accuracy", ylim=(-0.02, 1.02)
        )
        heading(axes, settings["title"], note)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        key = [("trained with", None)]
        key += [(label(run, epsilons.get(run.name)), Line2D([], [], color=shade[run], **SOLID)) for run in runs]
        key += [("", None), ("attack follows", None)]
        key += [(LOSS_NAMES[loss], Line2D([], [], color="#555555", **style)) for loss, style in styles.items()]
        if paper_gap:
            key += [("", None), ("stated by the paper", Line2D([], [], **PAPER))]
            _gap(lower, shown, runs, styles, paper_gap)
        legend(figure, key)
        lower.set_xlabel("FGSM perturbation eps (largest change of a pixel, pixels in [0, 1])")
        lower.set_xlim(curves["eps"].min(), curves["eps"].max())
    return figure, curves


def _band(axes: Axes, curve: pd.DataFrame, colour: str, style: dict) -> None:
    axes.plot(curve["eps"], curve["mean"], color=colour, **style)
    if (curve["seeds"] > 1).any():
        axes.fill_between(curve["eps"], curve["min"], curve["max"], color=colour, alpha=0.18, linewidth=0)


def _gap(
    axes: Axes,
    shown: pd.DataFrame,
    runs: Sequence[Run],
    styles: Mapping[str, dict],
    paper_gap: Sequence[tuple[float, float]],
) -> None:
    wide = shown.pivot_table(index=["loss", "seed", "eps"], columns="run", values="value")
    gaps = (100 * (wide[runs[0].name] - wide[runs[1].name])).rename("value").reset_index()
    curves = over_seeds(gaps, ["loss", "eps"])
    for loss, style in styles.items():
        _band(axes, curves[curves["loss"] == loss], "#333333", style)
    for eps, gap in paper_gap:
        axes.plot(eps, gap, zorder=3, clip_on=False, **PAPER)
        axes.annotate(f"{gap:g}", (eps, gap), (6, 4), textcoords="offset points", fontsize=8, color="#A8487D")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_ylabel("accuracy gap (points)\nSGD − DP-SGD")
    axes.margins(y=0.18)
