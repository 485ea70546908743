"""Accuracy under the ladder of attacks against their size: the twins of Figs 2, 3 and 7 under the strongest attack."""

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

    Of the records: rows of metric "accuracy" with columns run, seed, norm, eps, rung, value, the rungs in their order.

    Returns:
        The figure and its numbers (`dprobust.curves.curves`), the attack's column being after: the rung, or "whole
        ladder".
    """
    records = given.records["ladder"]
    records = records[records["metric"] == "accuracy"]
    last = [rung for rung in records["rung"].unique() if rung != "clean"][-1]
    parts = []
    for after, rung in {WHOLE: last, settings.early: settings.early}.items():
        found = records[records["rung"] == rung].assign(after=after)
        clean = records[(records["rung"] == "clean") & (records["eps"] == records["eps"].min())]
        parts += [clean.assign(after=after, eps=0.0), found]
    names = {WHOLE: "the whole ladder"}
    if settings.early != "none":
        names[settings.early] = f"the ladder up to {NAMES[settings.early]}"
    words = Words(settings.title, RADIUS[records["norm"].iloc[0]], attack="left by")
    return curves(given, pd.concat(parts, ignore_index=True), "after", names, words, settings.gap)
