"""Accuracy against the size of an FGSM perturbation (Figs 2, 3a-c, 7)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dprobust.curves import Words, curves
from dprobust.metrics.fgsm.display import Display
from dprobust.showing import Given
from dprobust.style import LOSS_NAMES


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Accuracy curves; with `paper_gap` a lower panel shows the gap between the first two runs.

    Of the records: the arrays loss, eps, predicted and label.

    Returns:
        The figure and its numbers (`dprobust.curves.curves`), the attack's column being loss.
    """
    words = Words(
        settings.title,
        "FGSM perturbation eps (largest change of a pixel, pixels in [0, 1])",
        "accuracy / accuracy without attack" if settings.relative else "accuracy",
        "attack follows",
    )
    names = {loss: LOSS_NAMES[loss] for loss in settings.losses}
    eps = next(iter(given.arrays.values()))["eps"].tolist()
    right = given.outcomes("fgsm", right_under)
    return curves(
        given, right, eps, "loss", names, words, settings.relative, bool(settings.paper_gap), settings.paper_gap
    )


def right_under(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Loss -> what is right, (eps, images); "worst": under all losses."""
    right = arrays["predicted"] == arrays["label"]
    return dict(zip(arrays["loss"].tolist(), right, strict=True)) | {"worst": right.all(0)}
