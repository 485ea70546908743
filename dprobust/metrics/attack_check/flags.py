"""What the check of an attack casts doubt on, for figures that show accuracy under attack."""

import pandas as pd

from dprobust.metrics.attack_check.settings import Metric

NAMES = {
    "p_is_1": "p = 1",
    "wrong_direction": "wrong direction",
    "zero_gradient": "zero gradient",
    "softmax_output": "outputs are probabilities",
    "one_step": "one step does better",
    "smaller_ball": "half of eps does better",
    "left_at_0.5": "left at eps 0.5",
    "left_at_1": "left at eps 1",
    "loss_not_rising": "loss does not rise",
    "unreached": "eps not reached",
    "out_of_bounds": "out of the ball or [0, 1]",
    "other_loss": "margin breaks more",
    "restarts": "random starts break more",
    "black_box": "Square Attack breaks more",
    "transfer": "other models' images break more",
    "planted_missed": "planted points missed",
    "random_signs": "random signs raise as much",
    "not_deterministic": "passes differ",
    "training_mode": "training mode",
}
"""Check -> its name on pages."""
ATTACKS = {"pgd": "PGD", "fgsm": "FGSM"}


def flags(records: pd.DataFrame, settings: Metric) -> tuple[str, dict[str, str]]:
    """The runs whose robustness may be the attack's failure.

    Args:
        records: rows of the metric, of several runs and seeds.
        settings: of the metric.

    Returns:
        What flags them, and run name -> the checks that do, with how many of the seeds if it is not all.
    """
    eps = ", ".join(f"{size:g}" for size in settings.eps)
    by = f"flagged by the attack check ({ATTACKS[settings.attack]} along {settings.loss}, eps {eps})"
    found = {}
    for run, of_run in records.assign(flagged=is_flagged(records)).groupby("run", sort=False):
        seeds = of_run[of_run["flagged"]].groupby("check", sort=False)["seed"].nunique()
        every = of_run["seed"].nunique()
        told = [NAMES.get(c, c) + (f" ({n} of {every} seeds)" if n < every else "") for c, n in seeds.items()]
        if told:
            found[run] = ", ".join(told)
    return by, found


def is_flagged(records: pd.DataFrame) -> pd.Series:
    """Column `flagged` as bool, which a column with other rows between them may have as text."""
    return records["flagged"].astype(str) == "True"
