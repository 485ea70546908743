"""Membership inference: how well scores tell training examples from others, and the most that any attack could.

An attack gives each example a score; those above a threshold it calls members of the training set. Its ROC is the true
positive rate against the false positive rate over all thresholds. What matters for privacy is the end of low false
positive rates (Carlini et al. 2022, "Membership Inference Attacks From First Principles"), not the average over them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from dprobust.privacy import epsilon

DELTAS = tuple(10.0**exponent for exponent in np.arange(-6, -0.4, 0.4))
"""Where epsilon is taken for the ceiling; the ceiling is the least over them."""
RESAMPLES = 1000


class Estimate(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


def auc(members: np.ndarray, others: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Area under the ROC: the probability that a member scores higher than another example, ties counting half.

    The interval is normal, with the variance of DeLong, DeLong and Clarke-Pearson (1988), cut to [0, 1].

    Args:
        members, others: scores, [n] and [k], n and k at least 2.
        confidence: in (0, 1).
    """
    members, others = _checked(members, others)
    above, below = (_below(members, others), _below(others, members))
    value = float(above.mean())
    half = stats.norm.isf((1 - confidence) / 2) * math.sqrt(
        above.var(ddof=1) / len(members) + below.var(ddof=1) / len(others)
    )
    return Estimate(value, float(max(0.0, value - half)), float(min(1.0, value + half)))


def _below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, ties counting half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2 / len(ordered)


def true_positives(members: np.ndarray, others: np.ndarray, fpr: Sequence[float] | np.ndarray) -> np.ndarray:
    """The true positive rate at each false positive rate: at the lowest threshold that keeps to it.

    Args:
        members, others: scores, [n] and [k].
        fpr: in [0, 1], [f]. At one below 1 / k no other example may be called a member.

    Returns:
        float64 [f], in [0, 1].
    """
    members, others = np.sort(members), np.sort(others)[::-1]
    allowed = np.floor(np.asarray(fpr, dtype=np.float64) * len(others) + 1e-9).astype(int)
    thresholds = np.append(others, -np.inf)[np.minimum(allowed, len(others))]
    return 1 - np.searchsorted(members, thresholds, "right") / len(members)


def true_positives_interval(
    members: np.ndarray, others: np.ndarray, fpr: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """`true_positives` with percentiles of a bootstrap over members and others, each resampled by itself.

    Args:
        members, others, fpr: as for `true_positives`.
        confidence: in (0, 1).
        seed: of the resamples: equal scores give equal intervals.
    """
    members, others = _checked(members, others)
    random = np.random.default_rng(seed)
    again = np.stack(
        [
            true_positives(random.choice(members, len(members)), random.choice(others, len(others)), fpr)
            for _ in range(RESAMPLES)
        ]
    )
    ends = np.quantile(again, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [Estimate(*map(float, values)) for values in zip(true_positives(members, others, fpr), *ends, strict=True)]


def _checked(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    members, others = np.asarray(members, np.float64), np.asarray(others, np.float64)
    for scores in (members, others):
        if scores.ndim != 1 or len(scores) < 2 or np.isnan(scores).any():
            raise ValueError(f"scores must be two numbers or more in one dimension, none nan; found {scores.shape}")
    return members, others


def ceilings(mechanism: Mapping[str, Any], fpr: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
    """The highest true positive rate that any attack can have, by what the accountant proves of a training.

    (epsilon, delta)-DP gives TPR <= e^epsilon FPR + delta and 1 - FPR <= e^epsilon (1 - TPR) + delta; each bound is
    taken at every one of `DELTAS`, and the least of them holds.

    Args:
        mechanism: `dprobust.recipe.Training.mechanism`.
        fpr: false positive rates, [f].

    Returns:
        Game -> float64 [f]. "added": is one example in the training set or left out, all others being equal (Poisson
        sampling). "replaced": is it in, or another in its place: the game of training examples against fresh ones, for
        a training set of fixed size. It follows from leaving out the one and adding the other; with shuffled batches,
        from Gaussian DP with twice the mu of `dprobust.privacy.shuffle_epsilon`. Empty where nothing is proved: without
        clipping and noise, or for other samplers. A ceiling is of the average over training sets and noise: what one
        model's examples show scatters about it.
    """
    x, noise = np.asarray(fpr, np.float64), mechanism["noise_multiplier"]
    if not noise:
        return {}
    if mechanism["sampling"] == "shuffle":
        mu = 2 * math.sqrt(mechanism["epochs"]) / noise
        return {"replaced": stats.norm.sf(stats.norm.isf(x) - mu)}
    if mechanism["sampling"] != "poisson":
        return {}
    profile = [
        (max(0.0, epsilon(noise, mechanism["sample_rate"], mechanism["steps"], delta)), delta) for delta in DELTAS
    ]
    added = _ceiling(profile, x)
    return {"added": added, "replaced": _ceiling(profile, added)}


def _ceiling(profile: Sequence[tuple[float, float]], fpr: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        bounds = [np.exp(e) * fpr + delta for e, delta in profile]
        bounds += [1 - np.exp(-e) * (1 - delta - fpr) for e, delta in profile]
    return np.clip(np.min(bounds, axis=0), fpr, 1.0)
