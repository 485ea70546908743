"""The figures, drawn from records alone. SGD and DP-SGD keep their colours in every figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.files import replaced
from dprobust.study import Run

SGD_COLOUR = "#0072B2"
DPSGD_COLOUR = "#D55E00"
SWEEP = ("#F2A65A", DPSGD_COLOUR, "#9E2A5B", "#3B1550")
"""Colours of a sweep over sigma or C, from small to large: the DP-SGD hue, darkening."""

LOSS_NAMES = {
    "ce": "float32 cross-entropy (the paper's)",
    "ce_stable": "cross-entropy without round-off",
    "margin": "margin loss",
}

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


def colours(runs: Sequence[Run]) -> dict[Run, str]:
    """SGD its colour, one DP-SGD run its colour, several the sweep's in the order given."""
    private = [run for run in runs if run.private]
    shades = (
        [DPSGD_COLOUR] if len(private) == 1 else sns.blend_palette(SWEEP, max(len(private), 2), as_cmap=False).as_hex()
    )
    return {run: SGD_COLOUR for run in runs if not run.private} | dict(zip(private, shades, strict=False))


def label(run: Run, epsilon: float | None = None) -> str:
    """A run in a legend: sigma, C, the noise rule where it is not Algorithm 1's, and epsilon."""
    if not run.private:
        return "SGD"
    noise = "" if run.noise == "sigma*clip" else ", noise σ"
    privacy = "" if epsilon is None else f" (ε = {'∞' if np.isinf(epsilon) else f'{epsilon:.3g}'})"
    return f"DP-SGD σ = {run.sigma:g}, C = {run.clip:g}{noise}{privacy}"


def epsilons(privacy: pd.DataFrame) -> dict[str, float]:
    """Run name -> epsilon at the run's first delta, by the tightest accountant in the privacy records."""
    first = privacy[privacy["delta"] == privacy.groupby("run")["delta"].transform("first")]
    return first.groupby("run")["epsilon"].min().to_dict()


def over_seeds(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean, smallest and largest value over seeds, and their number, for each combination of the columns `by`."""
    table = records.groupby(by, sort=False)["value"].agg(["mean", "min", "max", "count"])
    return table.rename(columns={"count": "seeds"}).reset_index()


def fgsm(
    records: pd.DataFrame,
    runs: Sequence[Run],
    losses: Sequence[str],
    epsilons: Mapping[str, float],
    title: str = "",
    note: str = "",
    paper_gap: Sequence[tuple[float, float]] = (),
) -> tuple[Figure, pd.DataFrame]:
    """Accuracy against the size of an FGSM perturbation (Figs 2, 3a-c, 7).

    Args:
        records: rows of metric "accuracy" with columns run, seed, loss, eps, value.
        runs: the curves, in the order of the legend.
        losses: the loss of the solid curves and, if there are two, that of the thin dashed ones.
        epsilons: run name -> privacy epsilon, for the legend; a run without one is shown without.
        title: above the plot.
        note: small print beside the title, for example what is provisional about the numbers.
        paper_gap: (eps, percentage points) gaps between the first two runs that the paper states; with any, a lower
            panel shows this gap.

    Returns:
        The figure, and the numbers in it: run, loss, eps, mean, min, max, seeds.
    """
    names = [run.name for run in runs]
    shown = records[(records["metric"] == "accuracy") & records["run"].isin(names) & records["loss"].isin(losses)]
    curves = over_seeds(shown, ["run", "loss", "eps"])
    shade = colours(runs)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.2 if paper_gap else 3.8), layout="constrained")
        if paper_gap:
            axes, lower = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
        else:
            axes = lower = figure.subplots()
        styles = dict(zip(losses, (_SOLID, _DASHED), strict=False))
        for run in runs:
            for loss, style in styles.items():
                _band(axes, curves[(curves["run"] == run.name) & (curves["loss"] == loss)], shade[run], style)
        axes.set(ylabel="accuracy", ylim=(-0.02, 1.02))
        axes.set_title(title, loc="left")
        axes.set_title(note, loc="right", fontsize=7, color="#777777")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        key = [("trained with", None)]
        key += [(label(run, epsilons.get(run.name)), Line2D([], [], color=shade[run], **_SOLID)) for run in runs]
        key += [("", None), ("attack follows", None)]
        key += [(LOSS_NAMES[loss], Line2D([], [], color="#555555", **style)) for loss, style in styles.items()]
        if paper_gap:
            key += [("", None), ("stated by the paper", Line2D([], [], **_PAPER))]
            _gap(lower, shown, runs, styles, paper_gap)
        _legend(figure, key)
        lower.set_xlabel("FGSM perturbation eps (largest change of a pixel, pixels in [0, 1])")
        lower.set_xlim(curves["eps"].min(), curves["eps"].max())
    return figure, curves


_SOLID = {"linestyle": "-", "linewidth": 1.7}
_DASHED = {"linestyle": (0, (4, 2)), "linewidth": 0.9}
_PAPER = {"linestyle": "", "marker": "X", "markersize": 7, "color": "#CC79A7", "markeredgecolor": "white"}


def _legend(figure: Figure, key: Sequence[tuple[str, Line2D | None]]) -> None:
    """A legend beside the plot; entries without a line are headings."""
    handles = [line or Line2D([], [], linestyle="") for _, line in key]
    legend = figure.legend(handles, [text for text, _ in key], loc="outside right upper", handlelength=1.8)
    for text, (_, line) in zip(legend.get_texts(), key, strict=True):
        if line is None:
            text.set(color="#777777", style="italic")


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
        axes.plot(eps, gap, zorder=3, clip_on=False, **_PAPER)
        axes.annotate(f"{gap:g}", (eps, gap), (6, 4), textcoords="offset points", fontsize=8, color="#A8487D")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_ylabel("accuracy gap (points)\nSGD − DP-SGD")
    axes.margins(y=0.18)


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure in the formats of the file names; the same figure is the same bytes."""
    undated = {".pdf": {"CreationDate": None}, ".png": {"Software": None}, ".svg": {"Date": None}}
    for path in paths:
        with replaced(path) as temporary, mpl.rc_context(STYLE | {"svg.hashsalt": "dprobust"}):
            figure.savefig(temporary, format=path.suffix[1:], metadata=undated[path.suffix])
