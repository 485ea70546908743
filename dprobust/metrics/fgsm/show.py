"""Accuracy against the size of an FGSM perturbation (Figs 2, 3a-c, 7)."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.metrics.fgsm.display import Display
from dprobust.runs import Run
from dprobust.showing import Given
from dprobust.style import LOSS_NAMES, PAPER, STYLE, colours, head, legend, over_seeds, runs_key, short, wrapped

STYLES = (
    {"linestyle": "-", "linewidth": 1.7},
    {"linestyle": (0, (5, 1.6)), "linewidth": 1.2},
    {"linestyle": (0, (1, 1.1)), "linewidth": 1.5},
    {"linestyle": (0, (5, 1.2, 1, 1.2)), "linewidth": 1.0},
)
"""Of the losses, in their order."""


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves with bands from the smallest to the largest value over seeds.

    Of the records: rows of metric "accuracy" with columns run, seed, loss, eps, value; of a loss "worst" where that is
    shown. With `paper_gap` a lower panel shows the gap between the first two runs.

    Returns:
        The figure, and the numbers in it: run, minus, loss, eps, mean, min, max, seeds: accuracies 0 to 1 of a run, or
        what is left of them less those of the run `minus` (of the same seed).
    """
    runs, records = given.runs, given.records["fgsm"]
    shown = records[
        (records["metric"] == "accuracy")
        & records["run"].isin([run.name for run in runs])
        & records["loss"].isin(settings.losses)
    ]
    if settings.relative:
        clean = shown[shown["eps"] == 0].set_index(["run", "seed", "loss"])["value"]
        index = pd.MultiIndex.from_frame(shown[["run", "seed", "loss"]])
        shown = shown.assign(value=shown["value"] / clean.loc[index].to_numpy())
    curves = over_seeds(shown, ["run", "loss", "eps"])
    curves.insert(1, "minus", "")
    gaps = _gaps(shown, runs) if settings.paper_gap else curves[:0]
    shade = colours(runs)
    styles = dict(zip(settings.losses, STYLES, strict=False))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.4 if settings.paper_gap else 4.0), layout="constrained")
        if settings.paper_gap:
            axes, lower = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
        else:
            axes = lower = figure.subplots()
        for run in runs:
            for loss, style in styles.items():
                _band(axes, curves[(curves["run"] == run.name) & (curves["loss"] == loss)], shade[run], style)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("accuracy / accuracy without attack" if settings.relative else "accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        key = runs_key({run: run.label(given.epsilons.get(run.name)) for run in runs}, shade)
        key += [("", None), ("attack follows", None)]
        key += [(LOSS_NAMES[loss], Line2D([], [], color="#555555", **style)) for loss, style in styles.items()]
        if settings.paper_gap:
            key += [("", None), ("stated by the paper", Line2D([], [], **PAPER))]
            _gap_panel(lower, gaps, runs, styles, settings.paper_gap)
        legend(figure, key)
        lower.set_xlabel("FGSM perturbation eps (largest change of a pixel, pixels in [0, 1])")
        lower.set_xlim(curves["eps"].min(), curves["eps"].max())
        head(figure, settings.title, given.note)
    return figure, pd.concat([curves, gaps], ignore_index=True) if len(gaps) else curves


def _band(axes: Axes, curve: pd.DataFrame, colour: str, style: Mapping[str, object]) -> None:
    """A curve over its band, which is lighter where the line is not the solid one."""
    alpha = 0.18 if style["linestyle"] == "-" else 0.09
    axes.plot(curve["eps"], curve["mean"], color=colour, **style)
    if (curve["seeds"] > 1).any():
        axes.fill_between(curve["eps"], curve["min"], curve["max"], color=colour, alpha=alpha, linewidth=0)


def _gaps(shown: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """First run less second, over the seeds that both have."""
    first, second = (run.name for run in runs[:2])
    wide = shown.pivot_table(index=["loss", "seed", "eps"], columns="run", values="value")
    gaps = (wide[first] - wide[second]).rename("value").dropna().reset_index()
    curves = over_seeds(gaps, ["loss", "eps"])
    curves.insert(0, "run", first)
    curves.insert(1, "minus", second)
    return curves


def _gap_panel(
    axes: Axes,
    gaps: pd.DataFrame,
    runs: Sequence[Run],
    styles: Mapping[str, Mapping[str, object]],
    paper_gap: Sequence[Sequence[float]],
) -> None:
    points = gaps.assign(**{name: 100 * gaps[name] for name in ("mean", "min", "max")})
    for loss, style in styles.items():
        _band(axes, points[points["loss"] == loss], "#333333", style)
    for eps, gap in paper_gap:
        axes.plot(eps, gap, zorder=3, clip_on=False, **PAPER)
        axes.annotate(f"{gap:g}", (eps, gap), (6, 4), textcoords="offset points", fontsize=8, color="#A8487D")
    axes.axhline(0, color="#999999", linewidth=0.8)
    names = short(runs)
    both = " − ".join(names[run] for run in runs[:2])
    if len(both) > 24:
        both = "\n− ".join(wrapped(names[run], 24) for run in runs[:2])
    axes.set_ylabel(f"gap (points)\n{both}", parse_math=False)
    axes.margins(y=0.18)
