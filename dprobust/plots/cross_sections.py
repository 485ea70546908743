"""Normal cross-sections of decision regions (Fig 1)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dprobust.plots.style import STYLE, colours, label
from dprobust.study import Run

RIGHT = "#5BAE6A"
REDS = ("#F9CDBE", "#F4A58A", "#E0664F", "#B3243A", "#6B1030")
"""The wrong classes, blended from the first to the last that is seen."""


def draw(
    records: pd.DataFrame,
    runs: Sequence[Run],
    settings: Mapping[str, Any],
    epsilons: Mapping[str, float],
    note: str = "",
) -> tuple[Figure, pd.DataFrame]:
    """Decision regions around images, a row a run, a column an image, all at one scale.

    Args:
        records: rows with columns run, seed, sample, metric, repeat, value: stretches of equal values, `repeat` long,
            of the grids "pixel" (the image), "offset" (coordinates along both axes, l2), "class" (rows along the
            normal), and single values of "label", "predicted" and "distance". The first seed is drawn.
        runs: the rows.
        settings: the figure's entry in the config: `title`.
        epsilons: run name -> privacy epsilon, for the rows' names.
        note: small print beside the title.

    Returns:
        The figure, and of each square: run, sample, label, predicted (at the image), distance (l2, to the boundary
        along the normal), right (share of the square that has the image's class), classes (how many are seen).
    """
    shown = records[(records["seed"] == records["seed"].iloc[0]) & records["run"].isin([run.name for run in runs])]
    sections = {
        key: {metric: np.repeat(rows["value"], rows["repeat"]).to_numpy() for metric, rows in group.groupby("metric")}
        for key, group in shown.groupby(["run", "sample"], sort=False)
    }
    samples = list(shown["sample"].unique())
    grids = {key: s["class"].astype(int).reshape(len(s["offset"]), -1) for key, s in sections.items()}
    labels = {sample: int(sections[runs[0].name, sample]["label"].item()) for sample in samples}
    wrong = sorted({c for (_, sample), grid in grids.items() for c in np.unique(grid) if c != labels[sample]})
    reds = dict(zip(wrong, sns.blend_palette(REDS, max(len(wrong), 2)), strict=False))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.0 + 1.55 * len(samples), 1.2 + 1.7 * len(runs)), layout="constrained")
        thumbnails, *rows = figure.subplots(
            1 + len(runs), len(samples), squeeze=False, height_ratios=(0.42, *[1] * len(runs))
        )
        for axes, sample in zip(thumbnails, samples, strict=True):
            pixels = sections[runs[0].name, sample]["pixel"]
            axes.imshow(_image(pixels), cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(f"test image {sample}", fontsize=8)
            axes.axis("off")
        for run, row in zip(runs, rows, strict=True):
            for axes, sample in zip(row, samples, strict=True):
                _regions(axes, sections[run.name, sample]["offset"], grids[run.name, sample], labels[sample], reds)
                axes.tick_params(labelleft=axes is row[0], labelbottom=row is rows[-1], labelsize=7)
            name = label(run, epsilons.get(run.name)).replace(" (", "\n(")
            row[0].set_ylabel(name, color=colours(runs)[run], fontweight="bold", fontsize=8)
        middle = rows[-1][len(samples) // 2]
        middle.set_xlabel("random direction orthogonal to the normal (l2, pixels in [0, 1])", fontsize=8)
        figure.supylabel("normal to the nearest boundary (l2)", fontsize=8)
        key = {
            "the image": Line2D([], [], color="black", marker="+", linestyle=""),
            "its class": Patch(color=RIGHT),
            "another class, as numbered": Patch(color=REDS[2]),
        }
        figure.legend(key.values(), key.keys(), loc="outside lower center", ncols=len(key))
        figure.suptitle(settings["title"], fontsize=10, x=0.01, ha="left")
        figure.text(0.99, 0.99, note, ha="right", va="top", fontsize=7, color="#777777")
    numbers = [
        {
            "run": run.name,
            "sample": sample,
            "label": labels[sample],
            "predicted": int(sections[run.name, sample]["predicted"].item()),
            "distance": sections[run.name, sample]["distance"].item(),
            "right": (grid == labels[sample]).mean(),
            "classes": len(np.unique(grid)),
        }
        for run in runs
        for sample in samples
        for grid in [grids[run.name, sample]]
    ]
    return figure, pd.DataFrame(numbers)


def _image(pixels: np.ndarray) -> np.ndarray:
    """A square grey image (H, W), or a colour one (H, W, 3), of the pixels of (C, H, W) in a row."""
    side = math.isqrt(len(pixels))
    if side**2 == len(pixels):
        return pixels.reshape(side, side)
    side = math.isqrt(len(pixels) // 3)
    return pixels.reshape(3, side, side).transpose(1, 2, 0)


def _regions(axes: Axes, offsets: np.ndarray, grid: np.ndarray, right: int, reds: Mapping[int, tuple]) -> None:
    """Regions in their colours, thin lines between them, the wrong class where there is room, a cross at the image."""
    cell = (offsets[-1] - offsets[0]) / (len(offsets) - 1) / 2
    extent = (offsets[0] - cell, offsets[-1] + cell) * 2
    classes = np.unique(grid)
    axes.imshow(
        np.searchsorted(classes, grid),
        cmap=ListedColormap([RIGHT if c == right else reds[c] for c in classes]),
        vmin=-0.5,
        vmax=len(classes) - 0.5,
        origin="lower",
        extent=extent,
        interpolation="nearest",
    )
    for c in classes:
        region = grid == c
        if not region.all():
            axes.contour(offsets, offsets, region, levels=[0.5], colors="#222222", linewidths=0.4)
        row, column, room = _inside(region)
        if c != right and room > len(grid) / 25:
            ink = "white" if sum(reds[c]) < 1.5 else "black"
            axes.text(offsets[column], offsets[row], str(c), ha="center", va="center", fontsize=8, color=ink)
    axes.plot(0, 0, "+", color="black", markersize=6, markeredgewidth=1)


def _inside(region: np.ndarray) -> tuple[int, int, int]:
    """The cell of a region that is farthest from its edge, and its distance in cells."""
    room, left = 0, region
    while left.any():
        room, last = room + 1, left
        padded = np.pad(left, 1)
        left = left & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    farthest = np.argwhere(last)
    row, column = farthest[np.abs(farthest - farthest.mean(axis=0)).sum(axis=1).argmin()]
    return row, column, room
