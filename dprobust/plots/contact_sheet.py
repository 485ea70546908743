"""One digit under each of the 31 corruptions of MNIST-C, beside the clean one."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from dprobust.corruptions import OFFICIAL
from dprobust.plots.style import STYLE

COLUMNS = 8


def draw(
    clean: np.ndarray, sets: Mapping[str, np.ndarray], index: Sequence[int], origin: str, note: str = ""
) -> Figure:
    """A contact sheet.

    Args:
        clean: uint8 (N, 28, 28).
        sets: corruption -> uint8 (N, 28, 28), the same images corrupted.
        index: the images to show; each corruption shows the next one, in turn.
        origin: where the sets come from, for the title.
        note: small print below the title.
    """
    tiles = [("identity", clean), *sets.items()]
    rows = -(-len(tiles) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.12 * rows + 0.5), layout="constrained")
        figure.suptitle(f"MNIST-C ({origin}); in bold the 15 official corruptions", fontsize=10)
        if note:
            figure.supxlabel(note, fontsize=7, color="#777777")
        for k, axes in enumerate(figure.subplots(rows, COLUMNS).flat):
            axes.set_axis_off()
            if k < len(tiles):
                name, images = tiles[k]
                axes.imshow(images[index[k % len(index)]], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_title(name.replace("_", " "), fontsize=7, fontweight="bold" if name in OFFICIAL else "normal")
    return figure
