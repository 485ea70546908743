"""Accuracy under the ladder of attacks against their size: the twins of Figs 2, 3 and 7 under the strongest attack."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dprobust.curves import Words, curves
from dprobust.displays.strongest.display import Display
from dprobust.metrics.ladder.show import NAMES
from dprobust.showing import Given

RADIUS = {
    "linf": "eps (largest change of a pixel, pixels in [0, 1])",
    "l2": "eps (l2 length of the change, pixels in [0, 1])",
}
WHOLE = "whole ladder"


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves, at eps 0 without attack.

    Of the records: the arrays rung, eps, norm and broken_by.

    Returns:
        The figure and its numbers (`dprobust.curves.curves`), the attack's column being after: the rung, or "whole
        ladder".
    """
    first = next(iter(given.arrays.values()))
    names = {WHOLE: "the whole ladder"}
    if settings.early != "none":
        names[settings.early] = f"the ladder up to {NAMES[settings.early]}"

    def right(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        broken, rungs = arrays["broken_by"], arrays["rung"].tolist()
        last = {WHOLE: len(rungs)} | ({settings.early: rungs.index(settings.early)} if settings.early in rungs else {})
        clean = broken[:1] != 0
        return {name: np.concatenate([clean, (broken < 0) | (broken > end)]) for name, end in last.items()}

    eps = [0.0, *first["eps"].tolist()]
    words = Words(settings.title, RADIUS[first["norm"].tolist()[0]], attack="left by")
    return curves(given, given.outcomes("ladder", right), eps, "after", names, words, gap=settings.gap)
