"""One digit under each of the 31 corruptions of MNIST-C, beside the clean one."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dprobust.arrays import draw, load, read_npz
from dprobust.corruptions import OFFICIAL
from dprobust.displays.contact_sheet.display import Display
from dprobust.showing import Given
from dprobust.style import STYLE, head

COLUMNS = 8
IMAGES = 8


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """A contact sheet of the first eight images of the study's draw: each tile shows the next one, in turn.

    Of the files: `test`, the clean test images, and `sets`, corruption -> the same images corrupted, uint8 (N, 28, 28),
    with the origin of each set in the .json beside it.

    Returns:
        The figure, and of each tile: corruption, index (of the image in the test set), origin.
    """
    path = given.files["sets"]
    origins = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    clean, sets = load(given.files["test"]).images[:, 0], read_npz(path)
    index = np.sort(draw(len(clean), IMAGES, settings.dataset)).tolist()
    tiles = [("identity", clean), *sets.items()]
    shown = [(name, index[k % len(index)], images[index[k % len(index)]]) for k, (name, images) in enumerate(tiles)]
    rows = -(-len(shown) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.12 * rows + 0.7), layout="constrained")
        for k, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False).flat):
            axes.set_axis_off()
            if k < len(shown):
                name, _, image = shown[k]
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_title(name.replace("_", " "), fontsize=7, fontweight="bold" if name in OFFICIAL else "normal")
        told = f"sets: {', '.join(sorted(set(origins.values())))}; in bold the 15 of the main archive"
        head(figure, settings.title or "MNIST-C", "; ".join(filter(None, (told, given.note))))
    numbers = [{"corruption": name, "index": i, "origin": origins.get(name, settings.dataset)} for name, i, _ in shown]
    return figure, pd.DataFrame(numbers)
