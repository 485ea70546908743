"""Normal cross-sections of decision regions (Fig 1)."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dprobust.metrics.cross_sections.display import Display
from dprobust.showing import Given
from dprobust.style import STYLE, colours, head, legend, wrapped

OWN = "#BFE1F6"
OTHERS = ("#FFD9A0", "#F5A553", "#D9711F", "#A3470E", "#5C2506")
"""The other classes, blended from the first to the last that is seen. Blue against orange to brown is what the
colour-blind tell apart."""


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Decision regions around images, a row a run, a column an image, all at one scale.

    Of the records: rows with columns run, seed, sample, metric, repeat, value: stretches of equal values, `repeat`
    long, of the grids "pixel" (the image), "offset" (coordinates along both axes, l2), "class" (rows along the normal),
    and single values of "label", "predicted" and "distance". The first seed is drawn.

    Returns:
        The figure, and of each square: run, sample, label, predicted (at the image), distance (l2, to the boundary
        along the normal), right (share of the square that has the image's class), classes (how many are seen).
    """
    runs, records = given.runs, given.records["cross_sections"]
    shown = records[records["run"].isin([run.name for run in runs])]
    shown = shown[shown["seed"] == shown["seed"].iloc[0]]
    sections = {
        key: {metric: np.repeat(rows["value"], rows["repeat"]).to_numpy() for metric, rows in group.groupby("metric")}
        for key, group in shown.groupby(["run", "sample"], sort=False)
    }
    samples = list(shown["sample"].unique())
    grids = {key: s["class"].astype(int).reshape(len(s["offset"]), -1) for key, s in sections.items()}
    labels = {sample: int(sections[runs[0].name, sample]["label"].item()) for sample in samples}
    others = shades({c for (_, sample), grid in grids.items() for c in np.unique(grid) if c != labels[sample]})
    shade = colours(runs)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(2.6 + 1.55 * len(samples), 1.2 + 1.7 * len(runs)), layout="constrained")
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
                _regions(axes, sections[run.name, sample]["offset"], grids[run.name, sample], labels[sample], others)
                axes.tick_params(labelleft=axes is row[0], labelbottom=row is rows[-1], labelsize=7)
            name = wrapped(run.label(given.epsilons.get(run.name)), 22)
            row[0].set_ylabel(name, color=shade[run], fontweight="bold", fontsize=8, parse_math=False)
        across = "random direction orthogonal to the normal (l2, pixels in [0, 1])"
        if len(samples) < 3:
            across = across.replace(" (", "\n(")
        rows[-1][len(samples) // 2].set_xlabel(across, fontsize=8, x=0.5 * (len(samples) % 2))
        figure.supylabel("normal to the nearest boundary (l2)", fontsize=8)
        key = [("the image", Line2D([], [], color="black", marker="+", linestyle=""))]
        key += [("its class", Patch(color=OWN)), ("another class,\nas numbered", Patch(color=OTHERS[2]))]
        legend(figure, key)
        head(figure, settings.title, given.note)
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


def shades(classes: set[int]) -> dict[int, tuple[float, float, float]]:
    """The colours of the other classes, RGB in [0, 1]."""
    return dict(zip(sorted(classes), sns.blend_palette(OTHERS, max(len(classes), 2)), strict=False))


def ink(colour: Sequence[float]) -> str:
    """Black or white, whichever reads better on a colour (RGB in [0, 1]): the higher contrast of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _image(pixels: np.ndarray) -> np.ndarray:
    """A square grey image (H, W), or a colour one (H, W, 3), of the pixels of (C, H, W) in a row."""
    side = math.isqrt(len(pixels))
    if side**2 == len(pixels):
        return pixels.reshape(side, side)
    side = math.isqrt(len(pixels) // 3)
    return pixels.reshape(3, side, side).transpose(1, 2, 0)


def _regions(axes: Axes, offsets: np.ndarray, grid: np.ndarray, own: int, others: Mapping[int, tuple]) -> None:
    """Regions in their colours, thin lines between them, the wrong class where there is room, a cross at the image."""
    cell = (offsets[-1] - offsets[0]) / (len(offsets) - 1) / 2
    extent = (offsets[0] - cell, offsets[-1] + cell) * 2
    classes = np.unique(grid)
    axes.imshow(
        np.searchsorted(classes, grid),
        cmap=ListedColormap([OWN if c == own else others[c] for c in classes]),
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
        if c != own and room > len(grid) / 25:
            centred = {"ha": "center", "va": "center", "fontsize": 8, "color": ink(others[c])}
            axes.text(offsets[column], offsets[row], str(c), **centred)
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
