"""Audit of a DP training in one run: a lower bound on epsilon, and tests of clipping, noise and sampling.

Canaries are examples whose clipped gradient is known beforehand: C (or nearly) along a direction of its own. A coin
decides for each whether it is in the training set or replaced by an example without gradient. `train_canaries` runs
them through `dprobust.training.train` like any examples, with the sampler, engine, noise and update of a run. The
parameters that come out tell, along a canary's direction, how often it was drawn, plus noise; and along the direction
beside it, noise alone. From the first, guesses of the coins bound epsilon from below (Steinke, Nasr, Jagielski 2023,
"Privacy Auditing with One (1) Training Run"). Both together show whether what is added is what the accountant was told
(`checks`).

A private model is never far from chance, so the lower bound is near 0 where privacy is strong, however good the
implementation: it finds gross faults. `checks` is far sharper.
"""

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize, special, stats
from torch import Tensor, nn

from dprobust.arrays import Split
from dprobust.clipping import GAMMA
from dprobust.recipe import Training
from dprobust.seeds import generator
from dprobust.training import train

PARAMETERS = 4
"""Parameters that the canaries are shared out among, so that one without noise shows."""
FACTOR = 100.0
"""Gradient norms of canaries before clipping, in units of C, at a logit difference of 0 times sqrt(2)."""
DRIFT = 0.05
"""How far the logits of canaries may move in a training, about: their gradients stay as good as constant."""
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Guesses to choose from, as shares of the canaries."""


# The bound.


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float = 0.0) -> float:
    """The largest probability of at least `right` right guesses that (epsilon, delta)-DP allows.

    Steinke, Nasr and Jagielski 2023, Theorem 5.2: P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i, W being binomial:
    `guesses` trials that succeed with probability e^epsilon / (e^epsilon + 1).

    Args:
        canaries: m, each included by a fair coin of its own.
        guesses: r, how many coins are guessed, fixed before the outcome is known.
        right: v, how many of the guesses are right.
        epsilon: at least 0.
        delta: in [0, 1).

    Raises:
        ValueError: not 0 <= right <= guesses <= canaries, or epsilon or delta out of range.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"need 0 <= right <= guesses <= canaries, found {right}, {guesses}, {canaries}")
    if not (epsilon >= 0 and 0 <= delta < 1):
        raise ValueError(f"epsilon must be at least 0 and delta in [0, 1), found {epsilon} and {delta}")
    # Wrong guesses are what is counted: a success probability near 1 would be rounded to 1.
    wrong, chance = guesses - right, special.expit(-epsilon)
    tail = stats.binom.cdf(wrong, guesses, chance)
    if delta == 0 or right == 0:
        return float(min(tail, 1.0))
    i = np.arange(1, right + 1)
    slope = (np.cumsum(stats.binom.pmf(wrong + i, guesses, chance)) / i).max()
    return float(min(tail + 2 * canaries * delta * slope, 1.0))


def epsilon_lower(canaries: int, guesses: int, right: int, delta: float = 0.0, confidence: float = 0.95) -> float:
    """The largest epsilon such that less than (epsilon, delta)-DP is refuted at this confidence; 0 if nothing is.

    Of an algorithm that is (epsilon, delta)-DP, it is above that epsilon with probability 1 - confidence at most. At
    delta 0 it is the Clopper-Pearson bound on the share of right guesses, as log odds.

    Args:
        canaries, guesses, right, delta: as for `p_value`.
        confidence: in (0, 1).

    Raises:
        ValueError: an argument out of its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), found {confidence}")
    level, wrong = 1 - confidence, guesses - right
    if p_value(canaries, guesses, right, 0.0, delta) >= level:
        return 0.0
    high = max(0.0, float(-special.logit(stats.beta.ppf(confidence, wrong + 1, right))))
    if delta == 0:
        return high
    low = 0.0
    while high - low > 1e-9 * (1 + high):  # low is refuted, high is not
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(canaries, guesses, right, middle, delta) < level else (low, middle)
    return low


# Canaries.


class CanaryNet(nn.Module):
    """Two logits, linear in features (N, m): a column of weights, of one of several parameters, a canary."""

    def __init__(self, canaries: int, parameters: int = PARAMETERS) -> None:
        super().__init__()
        sizes = [len(part) for part in torch.arange(canaries).tensor_split(parameters)]
        self.parts = nn.ModuleList(nn.Linear(size, 2, bias=False) for size in sizes if size)
        for part in self.parts:
            nn.init.zeros_(part.weight)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.split([part.in_features for part in self.parts], dim=1)
        return torch.stack([part(piece) for part, piece in zip(self.parts, pieces, strict=True)]).sum(0)


@dataclass(frozen=True)
class Canaries:
    """What a training has made of canaries. Scores are sums over the steps, in units of C.

    Attributes:
        settings: the training.
        included: bool [m], the coins.
        score: float64 [m], along the canary's gradient: how often it was drawn, plus noise.
        noise: float64 [m], along a direction that no gradient has: noise alone.
        parameter: int64 [m], which of the parameters holds the canary.
        weights: float64 [steps], of the steps in the scores, 1 on average (schedule and momentum tell them apart).
    """

    settings: Training
    included: np.ndarray
    score: np.ndarray
    noise: np.ndarray
    parameter: np.ndarray
    weights: np.ndarray

    @property
    def rate(self) -> float:
        """The probability that an included canary is in a batch."""
        return self.settings.batch_size / len(self.included)

    @property
    def length(self) -> float:
        """The norm of a canary's clipped gradient in units of C: 1, less by the clip function automatic."""
        if self.settings.clip_function == "abadi":
            return 1.0
        norm = FACTOR * self.settings.clip / math.sqrt(2)
        return norm / (norm + GAMMA)

    @property
    def noise_std(self) -> float:
        """What the standard deviation of the noise in the scores should be."""
        return self.settings.noise_multiplier * math.sqrt(np.square(self.weights).sum())


def scaled(settings: Training, n: int, canaries: int) -> tuple[Training, int]:
    """The training on few examples that has the sampling rate and the steps of one on `n`; and how many examples.

    The examples are the fewest that are no fewer than `canaries`; the rate is b / N or up to one part in as many above.
    """
    batch = -(-canaries * settings.batch_size // n)  # rounded up
    examples = batch * n // settings.batch_size
    settings = settings.model_copy(update={"batch_size": batch, "augment": [], "mislabelled": 0})
    weights = influence(settings.model_copy(update={"lr": 1.0, "weight_decay": 0.0}), examples)
    mean, std = _drawn(weights, batch / examples)
    farthest = mean + 6 * (std + settings.noise_multiplier * math.sqrt(np.square(weights).sum()))
    # A parameter moves by up to lr * C * farthest, a logit by FACTOR * C times as much.
    lr = DRIFT / (FACTOR * settings.clip**2 * float(farthest))
    return settings.model_copy(update={"lr": lr}), examples


def influence(settings: Training, n: int) -> np.ndarray:
    """How much of the sum of gradients of each step is in the parameters at the end, less the sign: float64 [steps].

    lr / b for plain steps of a constant learning rate; momentum, schedule and weight decay change it. Written from the
    definition of the update (`Training`), not from its code.
    """
    steps, b = settings.epochs * settings.steps_per_epoch(n), settings.batch_size
    momentum, decay = settings.momentum, settings.weight_decay * b
    # With gradient g = sum + decay * theta: velocity = momentum * velocity + g; theta -= lr / b * (g + momentum *
    # velocity) with Nesterov's, lr / b * velocity without. Backwards through time, by the chain rule.
    now, before = (1.0, momentum) if settings.nesterov and momentum else (0.0, 1.0)
    theta, velocity = 1.0, 0.0  # the derivatives of the last theta
    told = np.empty(steps)
    for t in reversed(range(steps)):
        rate = settings.lr_at(t, steps) / b
        inner = velocity - rate * before * theta  # of the velocity of this step
        told[t] = inner - rate * now * theta  # of g
        theta, velocity = theta + decay * told[t], momentum * inner
    return -told


def _drawn(weights: np.ndarray, rate: float) -> tuple[float, float]:
    """Mean and standard deviation of how often a canary is drawn, steps weighted."""
    return rate * weights.sum(), math.sqrt(rate * (1 - rate) * np.square(weights).sum())


def train_canaries(
    settings: Training,
    n: int,
    canaries: int,
    stream: tuple[object, ...],
    device: torch.device | str = "cpu",
) -> Canaries:
    """Train on canaries as a run trains on its `n` examples: at its sampling rate, C and sigma, for as many steps.

    The learning rate is scaled down, so that the canaries' gradients do not change: parameters only rescale by it. Each
    gradient is about 70 C long before clipping. Images are not augmented, nor given wrong
    classes: a canary is none.

    Args:
        settings: with clipping and noise, `epsilon` turned into sigma.
        n: examples that the run is trained on.
        canaries: how many to train at least; there are a few more where the sampling rate asks for it.
        stream: names that the random numbers are derived from; the coins have a stream of their own.
        device: where to train.

    Raises:
        ValueError: a training without clipping or noise, or `epsilon` not turned into sigma.
    """
    if not settings.noise_multiplier:
        raise ValueError("only a training with clipping and noise can be audited")
    settings, m = scaled(settings, n, canaries)
    included = torch.rand(m, generator=generator(*stream, "coins")) < 0.5
    features = torch.zeros(m, m)
    features[included, included.nonzero().squeeze(1)] = FACTOR * settings.clip
    data = Split(features.numpy(), np.zeros(m, np.int64), classes=2)
    net = CanaryNet(m).to(device)
    with _quiet():
        train(net, data, data.take(slice(0, 1)), settings, stream)
    moved = -torch.cat([part.weight.detach() for part in net.parts], dim=1).double().cpu().numpy()
    weights = influence(settings, m)
    unit = settings.clip * weights.mean() * math.sqrt(2)
    return Canaries(
        settings=settings,
        included=included.numpy(),
        score=(moved[1] - moved[0]) / unit,  # the gradient of class 0 is (-1, 1) / sqrt(2)
        noise=(moved[1] + moved[0]) / unit,
        parameter=np.repeat(np.arange(len(net.parts)), [part.in_features for part in net.parts]),
        weights=weights / weights.mean(),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of the epochs: accuracies of canaries say nothing."""
    logger = logging.getLogger("dprobust.training")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


# Guessing.


def guess(score: np.ndarray, included: np.ndarray, guesses: int) -> int:
    """How many of `guesses` guesses are right: the highest half of the scores is guessed in, the lowest out.

    Args:
        score: [m]. Equal ones are taken in their order.
        included: bool [m].
        guesses: 0 to m; of an odd number one more is guessed in.
    """
    if not 0 <= guesses <= len(score):
        raise ValueError(f"guesses must be 0 to {len(score)}, found {guesses}")
    order = np.argsort(-np.asarray(score), kind="stable")
    high, low = (guesses + 1) // 2, guesses // 2
    return int(included[order[:high]].sum() + (~included[order[len(order) - low :]]).sum())


def best_guesses(canaries: Canaries, delta: float = 0.0) -> int:
    """The number of guesses with the highest lower bound to be expected, from the settings alone.

    It depends on the mechanism that is stated, not on coins or scores: so it is fixed beforehand. Scores are taken for
    normal.
    """
    m = len(canaries.included)
    mean, drawn = _drawn(canaries.length * canaries.weights, canaries.rate)
    out, spread = canaries.noise_std, math.hypot(drawn, canaries.noise_std)

    def quantile(share: float) -> float:
        """The score that a share of the canaries lies above."""

        def excess(x: float) -> float:
            return (stats.norm.sf(x, mean, spread) + stats.norm.sf(x, 0, out)) / 2 - share

        return float(optimize.brentq(excess, -40 * out, mean + 40 * spread))

    bounds = {}
    for k in (max(2, 2 * math.floor(share * m / 2)) for share in SHARES):
        tail = k / (2 * m)
        right = m / 2 * stats.norm.sf(quantile(tail), mean, spread)
        right += m / 2 * stats.norm.cdf(quantile(1 - tail), 0, out)
        bounds[k] = epsilon_lower(m, k, min(k, math.floor(right)), delta)
    return max(bounds, key=lambda k: (bounds[k], k))


# Tests of what the accountant was told.


class Check(NamedTuple):
    """A test of the training against its settings.

    Attributes:
        name: "noise" (standard deviation) and "noise N" (in parameter N), "noise shared" (largest correlation between
            parameters), "gradient" (mean score of the included) or "sampling" (their variance; Poisson sampling only).
        ratio: what is found divided by what the settings say; of "noise shared" the correlation itself.
        p: probability of a value as far off, if the settings hold.
    """

    name: str
    ratio: float
    p: float


def checks(canaries: Canaries) -> list[Check]:
    """Test noise, clipping and sampling of a training by what it has made of canaries.

    * The standard deviation of the noise, overall and in each parameter (chi-squared): too little noise, none in one
      parameter, the same in every step or every epoch, a divisor that depends on the batch drawn.
    * Correlations between the parameters' noise: one stream used twice.
    * The mean score of the included canaries (normal): gradients not clipped to C, another sampling rate.
    * Their variance (chi-squared by moments): batches that are not Poisson's, where the noise leaves that to be seen.
    """
    std, out = canaries.noise_std, ~canaries.included
    beside = [canaries.noise[canaries.parameter == j] for j in np.unique(canaries.parameter)]
    along = [canaries.score[out & (canaries.parameter == j)] for j in np.unique(canaries.parameter)]
    told = [_noise("noise", np.concatenate(beside + along) / std)]
    for j, parts in enumerate(zip(beside, along, strict=True), start=1):
        told.append(_noise(f"noise {j}", np.concatenate(parts) / std))
    if pairs := list(itertools.combinations(beside, 2)):
        n = min(map(len, beside))
        most = max((_correlation(a[:n], b[:n]) for a, b in pairs), key=abs)
        p = min(1.0, len(pairs) * 2 * stats.norm.sf(abs(most) * math.sqrt(n)))
        told.append(Check("noise shared", most, float(p)))
    if canaries.included.any():
        score = canaries.score[canaries.included]
        mean, drawn = _drawn(canaries.length * canaries.weights, canaries.rate)
        z = (score.mean() - mean) / math.hypot(drawn, std) * math.sqrt(len(score))
        told.append(Check("gradient", float(score.mean() / mean), float(2 * stats.norm.sf(abs(z)))))
        if canaries.settings.sampling == "poisson" and len(score) > 1:
            told.append(_sampling(canaries, score, drawn**2 + std**2))
    return told


def _noise(name: str, values: np.ndarray) -> Check:
    """Whether values have the standard deviation 1."""
    square, n = float(np.square(values).sum()), len(values)
    p = 2 * min(stats.chi2.cdf(square, n), stats.chi2.sf(square, n))
    return Check(name, math.sqrt(square / n), min(1.0, float(p)))


def _sampling(canaries: Canaries, score: np.ndarray, variance: float) -> Check:
    """Whether the scores of the included canaries vary as with Poisson sampling."""
    ratio, n, spread = score.var(ddof=1) / variance, len(score), canaries.rate * (1 - canaries.rate)
    weights = canaries.length * canaries.weights
    fourth = spread * (1 - 6 * spread) * (weights**4).sum() / variance**2  # excess kurtosis
    degrees = 2 / (fourth / n + 2 / (n - 1))  # a chi-squared with the mean and the variance of the ratio
    ends = stats.chi2.cdf(ratio * degrees, degrees), stats.chi2.sf(ratio * degrees, degrees)
    return Check("sampling", float(ratio), min(1.0, 2 * float(min(ends))))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    scale = math.sqrt(np.square(a).sum() * np.square(b).sum())
    return float(a @ b / scale) if scale else 0.0
