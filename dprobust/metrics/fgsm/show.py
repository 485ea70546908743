"""Accuracy against the size of an FGSM perturbation (Figs 2, 3a-c, 7)."""

import pandas as pd
from matplotlib.figure import Figure

from dprobust.curves import Words, curves
from dprobust.metrics.fgsm.display import Display
from dprobust.showing import Given
from dprobust.style import LOSS_NAMES


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves; with `paper_gap` a lower panel shows the gap between the first two runs.

    Of the records: rows of metric "accuracy" with columns run, seed, loss, eps, value; of a loss "worst" where that is
    shown.

    Returns:
        The figure and its numbers (`dprobust.curves.curves`), the attack's column being loss.
    """
    records = given.records["fgsm"]
    values = records[records["metric"] == "accuracy"]
    if settings.relative:
        clean = values[values["eps"] == 0].set_index(["run", "seed", "loss"])["value"]
        index = pd.MultiIndex.from_frame(values[["run", "seed", "loss"]])
        values = values.assign(value=values["value"] / clean.loc[index].to_numpy())
    words = Words(
        settings.title,
        "FGSM perturbation eps (largest change of a pixel, pixels in [0, 1])",
        "accuracy / accuracy without attack" if settings.relative else "accuracy",
        "attack follows",
    )
    names = {loss: LOSS_NAMES[loss] for loss in settings.losses}
    return curves(given, values, "loss", names, words, bool(settings.paper_gap), settings.paper_gap)
