"""Audit of the training of a run, on canaries."""

import math

import numpy as np
import torch
from torch import nn

from dprobust.audit import best_guesses, checks, epsilon_lower, guess, train_canaries
from dprobust.errors import UserError
from dprobust.inference import home
from dprobust.measuring import Images, Measured
from dprobust.metrics.audit.settings import Metric
from dprobust.privacy import account
from dprobust.recipe import Training


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Train canaries as the run was trained (`dprobust.audit`), bound epsilon from below, and test the noise.

    Neither the model nor the images count: what is audited is how the run's training clips, draws, adds noise and
    updates. Bound and accountant's epsilon are those of the canaries' training, whose sampling rate is the run's up to
    rounding.

    Rows: guesses and right, numbers of them; for each delta epsilon_lower (at 95 %) and epsilon, the accountant's
    tightest; checks, with ratio as value and p: `noise`, `noise N` for each parameter, `noise shared`,
    `gradient`, `sampling` (`dprobust.audit.checks`). n is the number of canaries.

    Arrays, m canaries:
        included: bool [m], the coins.
        score, noise: float64 [m], along the canary's gradient and beside it, sums over the steps in units of C.
        parameter: int64 [m], which parameter holds the canary.
        weights: float64 [steps], of the steps in the scores.

    Raises:
        UserError: a run without clipping and noise, or given weights.
    """
    if images.trained is None:
        raise UserError("audit: these weights were trained elsewhere; only a training of this study can be audited")
    training = Training(**images.trained["settings"]["training"])
    if not training.noise_multiplier:
        raise UserError("audit: this run is not private; an audit needs clipping and noise")
    n = round(training.batch_size / images.trained["mechanism"]["sample_rate"])
    stream = tuple(images.trained[name] for name in ("seed", "dataset", "run"))
    canaries = train_canaries(training, n, settings.canaries, (*stream, "audit"), home(model, images.x))
    m, k = len(canaries.included), best_guesses(canaries, settings.deltas[0])
    right = guess(canaries.score, canaries.included, k)
    mechanism = canaries.settings.mechanism(m)

    measured = Measured()

    def add(metric: str, value: float, delta: float = math.nan, p: float = math.nan) -> None:
        measured.rows.append({"metric": metric, "delta": delta, "p": p, "n": m, "value": float(value)})

    add("guesses", k)
    add("right", right)
    for delta in settings.deltas:
        add("epsilon_lower", epsilon_lower(m, k, right, delta), delta)
        add("epsilon", min(row["epsilon"] for row in account(**mechanism, deltas=[delta])), delta)
    for check in checks(canaries):
        add(check.name, check.ratio, p=check.p)
    for name in ("included", "score", "noise", "parameter", "weights"):
        measured.keep(name, torch.from_numpy(np.ascontiguousarray(getattr(canaries, name))))
    return measured
