"""What all figures share: the style, colours that stay with SGD and DP-SGD, labels, legends, and saving."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dprobust.files import replaced
from dprobust.study import Run

SGD_COLOUR = "#0072B2"
DPSGD_COLOUR = "#D55E00"
SWEEP = ("#F2A65A", DPSGD_COLOUR, "#9E2A5B", "#3B1550")
"""Colours of a sweep over sigma or C, from small to large: the DP-SGD hue, darkening."""

PAPER = {"linestyle": "", "marker": "X", "markersize": 7, "color": "#CC79A7", "markeredgecolor": "white"}
"""How a value that the paper states is marked."""

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


def heading(axes: Axes, title: str, note: str) -> None:
    """The title, and below it in small print what is to be known of the numbers."""
    axes.set_title(title, loc="left", y=1.06 if note else None)
    axes.set_title(note, loc="right", y=1.0, fontsize=7, color="#777777")


def legend(figure: Figure, key: Sequence[tuple[str, Line2D | None]]) -> None:
    """A legend beside the plot; entries without a line are headings."""
    handles = [line or Line2D([], [], linestyle="") for _, line in key]
    box = figure.legend(handles, [text for text, _ in key], loc="outside right upper", handlelength=1.8)
    for text, (_, line) in zip(box.get_texts(), key, strict=True):
        if line is None:
            text.set(color="#777777", style="italic")


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure in the formats of the file names; the same figure is the same bytes."""
    undated = {".pdf": {"CreationDate": None}, ".png": {"Software": None}, ".svg": {"Date": None}}
    for path in paths:
        with replaced(path) as temporary, mpl.rc_context(STYLE | {"svg.hashsalt": "dprobust"}):
            figure.savefig(temporary, format=path.suffix[1:], metadata=undated[path.suffix])
