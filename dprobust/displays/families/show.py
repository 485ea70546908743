"""Accuracy under FGSM against the privacy epsilon, in families of runs."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from dprobust.displays.families.display import Display
from dprobust.metrics.fgsm.show import right_under
from dprobust.runs import Run
from dprobust.showing import Given
from dprobust.statistics import summary
from dprobust.style import LOSS_NAMES, SGD_COLOUR, STYLE, SWEEP, head, legend, shades, short

NAMES = {"clip": "C", "lr": "lr"}


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """A line a family, its runs by epsilon; runs without privacy are dashed lines across.

    Of the records: the arrays loss, eps, predicted and label.

    Returns:
        The figure, and its numbers: run, family, epsilon, and accuracy as mean with its 95 % interval over seeds and
        images, low and high, and seeds.
    """
    at = next(iter(given.arrays.values()))["eps"].tolist().index(settings.eps)
    right = given.outcomes("fgsm", right_under)
    found = {run.name: right[run.name, settings.loss][:, at] for run in given.runs}
    data = pd.DataFrame({"run": name} | summary(values, within=(0, 1)) for name, values in found.items())
    runs, names = {run.name: run for run in given.runs}, short(given.runs)
    epsilons = given.epsilons
    data["family"] = [_family(runs[name], settings.by) for name in data["run"]]
    data["epsilon"] = [epsilons.get(name, math.inf) if runs[name].private else math.inf for name in data["run"]]
    private = data[data["epsilon"].map(math.isfinite)].sort_values(["family", "epsilon"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        families = list(private.groupby("family"))
        key: list[tuple[str, Line2D | None]] = []
        for (family, rows), colour in zip(families, shades(SWEEP, len(families)), strict=False):
            below, above = rows["mean"] - rows["low"], rows["high"] - rows["mean"]
            axes.errorbar(rows["epsilon"], rows["mean"], [below, above], color=colour, marker="o", capsize=2)
            key.append((f"{NAMES[settings.by]} = {family:g}", Line2D([], [], color=colour, marker="o")))
        for row in data[data["epsilon"].map(math.isinf)].itertuples():
            axes.axhline(row.mean, color=SGD_COLOUR, linestyle="--", linewidth=1.2)
            axes.axhspan(row.low, row.high, color=SGD_COLOUR, alpha=0.12, linewidth=0)
            key.append((names[runs[row.run]] + given.mark(row.run), Line2D([], [], color=SGD_COLOUR, linestyle="--")))
        if not private.empty:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("privacy epsilon")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel(f"accuracy under FGSM, eps = {settings.eps:g}")
        attack = [("", None), ("attack follows the\n" * (settings.loss != "worst") + LOSS_NAMES[settings.loss], None)]
        legend(figure, [("trained with", None), *key, *attack])
        head(figure, settings.title, given.footnote)
    columns = ["run", "family", "epsilon", "mean", "low", "high", "seeds"]
    return figure, data[columns].reset_index(drop=True)


def _family(run: Run, by: str) -> float:
    value = getattr(run.training, by) if run.training else None
    return math.nan if value is None else float(value)
