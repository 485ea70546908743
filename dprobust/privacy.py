"""Privacy accounting for the sampler that was really used.

Poisson sampling has tight accountants, for adding or removing one example: Renyi DP (Mironov 2017; Mironov, Talwar,
Zhang 2019) and the numerical composition of privacy random variables (Gopi, Lee, Wutschitz 2021), both from Opacus.
Shuffled batches of fixed size have none; `shuffle_epsilon` is a valid upper bound for another notion of neighbours.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from decimal import ROUND_CEILING, Decimal
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from dprobust.errors import UserError
from dprobust.recipe import Training

ACCOUNTANTS = ("rdp", "prv")
PRECISION = 1e-4
"""How far above the smallest a noise multiplier that is looked for may be, relatively."""
LARGEST = 1e6
"""The largest noise multiplier that is looked for."""


def _check(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> None:
    if not noise_multiplier >= 0:
        raise ValueError(f"noise_multiplier must be at least 0, not {noise_multiplier}")
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must be in (0, 1], not {sample_rate}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, not {steps}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), not {delta}")


@cache
def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float, accountant: str = "prv") -> float:
    """epsilon at `delta` of `steps` Poisson-subsampled Gaussian mechanisms.

    Args:
        noise_multiplier: standard deviation of the noise divided by the clipping bound C.
        sample_rate: q, the probability that an example is in a batch: b / N.
        steps: number of noisy steps.
        delta: in (0, 1).
        accountant: "rdp" or "prv" (tighter; an upper bound within 0.01, or within 0.1 % above 10, never above RDP's).

    Returns:
        epsilon; infinite without noise, 0 without steps.

    Raises:
        ValueError: an argument out of its range.
    """
    _check(noise_multiplier, sample_rate, steps, delta)
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant must be one of {', '.join(ACCOUNTANTS)}, not {accountant!r}")
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    from opacus.accountants import PRVAccountant, RDPAccountant

    def stated(kind: type, rate: float, **options: float) -> float:
        accountant = kind()
        accountant.history = [(noise_multiplier, rate, steps)]
        return float(accountant.get_epsilon(delta, **options))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Opacus warns when the best RDP order is at the end of its list: the bound stays valid, only looser.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        try:
            bound = stated(RDPAccountant, sample_rate)
        except ValueError:  # differences that round to less than 0, at very large noise
            bound = stated(RDPAccountant, 1.0)  # taking every example is never more private
        if accountant == "rdp":
            return bound
        # The grid grows with epsilon / eps_error: a fixed error would take all memory where privacy is weak.
        # Where even that fails, by an error, infinity, nan or less than 0, the RDP bound holds all the same.
        try:
            tight = stated(PRVAccountant, sample_rate, eps_error=max(0.01, bound / 1000))
        except (RuntimeError, ValueError):
            return bound
        return tight if 0 < tight < bound else bound


def shuffle_epsilon(noise_multiplier: float, epochs: int, delta: float) -> float:
    """Upper bound on epsilon at `delta` for shuffled batches of fixed size.

    Neighbours differ in one example, whose gradient is zero in one of them (zero-out adjacency). Adding or removing an
    example moves others to other batches, and the bound does not hold for it; for replacing one by another, which moves
    the sum by up to 2 C, it holds with half the noise multiplier.

    The order of the batches does not depend on the data and each example is in at most one batch an epoch, so an epoch
    is one Gaussian mechanism on that example and `epochs` of them are Gaussian DP with mu = sqrt(epochs) /
    noise_multiplier (Dong, Roth, Su 2022, Corollary 2.13 gives delta as a function of epsilon).

    Raises:
        ValueError: an argument out of its range.
    """
    _check(noise_multiplier, 1.0, epochs, delta)
    if epochs == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    mu = math.sqrt(epochs) / noise_multiplier
    if _gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    upper = 1.0
    while _gaussian_delta(mu, upper) > delta:
        upper *= 2
    return float(brentq(lambda value: _gaussian_delta(mu, value) - delta, 0.0, upper, xtol=1e-12))


def _gaussian_delta(mu: float, value: float) -> float:
    """delta of mu-Gaussian DP at epsilon `value`."""
    return float(ndtr(mu / 2 - value / mu) - math.exp(value + log_ndtr(-mu / 2 - value / mu)))


def noise_multiplier(epsilon: float, delta: float, sampling: str, sample_rate: float, steps: int, epochs: int) -> float:
    """The smallest noise multiplier whose epsilon, by the tightest accountant for the sampler, is at most `epsilon`.

    Args:
        epsilon: wanted, above 0.
        delta: in (0, 1).
        sampling: "poisson" (accountant "prv" of `epsilon`) or "shuffle" (`shuffle_epsilon`).
        sample_rate: b / N, for "poisson".
        steps: noisy steps, for "poisson".
        epochs: passes over the data, for "shuffle".

    Returns:
        Standard deviation of the noise divided by C, rounded up to six significant digits and at most
        `PRECISION` above the smallest; 0 without steps.

    Raises:
        ValueError: an argument out of its range.
        UserError: an epsilon that no noise reaches, by this accountant.
    """
    _check(1.0, sample_rate, steps, delta)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite, not {epsilon}")
    if sampling not in ("poisson", "shuffle"):
        raise ValueError(f"sampling must be poisson or shuffle, not {sampling!r}")
    if (steps if sampling == "poisson" else epochs) == 0:
        return 0.0

    if sampling == "shuffle":
        found = _root(lambda multiplier: shuffle_epsilon(multiplier, epochs, delta), epsilon, 1.0, 4.0)
    else:
        # RDP is far cheaper, and where it reaches epsilon its answer is a few per cent above.
        rdp, prv = (_poisson(sample_rate, steps, delta, accountant) for accountant in ("rdp", "prv"))
        near = _root(rdp, epsilon, 1.0, 4.0)
        found = _root(prv, epsilon, near or 1.0, 1.1 if near else 4.0)
    if found is None:
        raise UserError(
            f"epsilon: {epsilon:g} at delta {delta:g} is out of reach of the accountant, however much noise there is; "
            "ask for more"
        )
    return found


def _poisson(sample_rate: float, steps: int, delta: float, accountant: str) -> Callable[[float], float]:
    return lambda multiplier: epsilon(multiplier, sample_rate, steps, delta, accountant)


def _root(accounted: Callable[[float], float], target: float, start: float, factor: float) -> float | None:
    """The smallest noise multiplier, up to `PRECISION`, where `accounted`, which falls, is at most `target`.

    Looks for it from `start` by steps of `factor`. None if it is above `LARGEST`.
    """
    low = high = start
    while accounted(high) > target:
        if high >= LARGEST:
            return None
        low, high, factor = high, min(high * factor, LARGEST), factor**1.5
    while accounted(low) <= target:
        low, high, factor = low / factor, low, factor**1.5

    def excess(log_multiplier: float) -> float:  # nearly a straight line
        return math.log(max(accounted(math.exp(log_multiplier)), 1e-300) / target)

    root = brentq(excess, math.log(low), math.log(high), xtol=PRECISION / 4, rtol=1e-12)
    found = _round_up(math.exp(root + PRECISION / 4))
    while accounted(found) > target:  # the accountant itself is no smoother than its own error
        found = _round_up(found * (1 + PRECISION / 4))
    return found


def _round_up(value: float) -> float:
    """To six significant digits."""
    unit = Decimal(1).scaleb(Decimal(value).adjusted() - 5)
    return float(Decimal(value).quantize(unit, ROUND_CEILING))


def account(
    sampling: str,
    noise_multiplier: float | None,
    sample_rate: float,
    steps: int,
    epochs: int,
    deltas: Iterable[float],
) -> list[dict[str, float | str]]:
    """What is guaranteed to hold for a training run, as rows of delta, accountant, epsilon, guarantee.

    Args:
        sampling: "poisson" or "shuffle".
        noise_multiplier: standard deviation of the noise divided by C; None without clipping, 0 without noise: neither
            guarantees anything.
        sample_rate: b / N.
        steps: noisy steps taken.
        epochs: passes over the data, for "shuffle".
        deltas: where epsilon is wanted.
    """
    if not noise_multiplier:
        guarantee = (
            "none: gradients are not clipped, so no noise would hide an example whose gradient is large"
            if noise_multiplier is None
            else "none: gradients are clipped, but no noise is added"
        )
        return [{"delta": d, "accountant": "none", "epsilon": math.inf, "guarantee": guarantee} for d in deltas]
    if sampling == "shuffle":
        guarantee = (
            "(epsilon, delta)-DP for the gradient of one example becoming zero (not for adding, removing or replacing "
            "an example), an upper bound for shuffled batches of fixed size (one Gaussian mechanism an epoch); "
            "no tight accountant is known for this sampler, and Poisson accounting does not apply to it"
        )
        return [
            {
                "delta": d,
                "accountant": "gdp",
                "epsilon": shuffle_epsilon(noise_multiplier, epochs, d),
                "guarantee": guarantee,
            }
            for d in deltas
        ]
    guarantee = "(epsilon, delta)-DP for adding or removing one example, Poisson sampling"
    return [
        {
            "delta": d,
            "accountant": accountant,
            "epsilon": epsilon(noise_multiplier, sample_rate, steps, d, accountant),
            "guarantee": guarantee,
        }
        for d in deltas
        for accountant in ACCOUNTANTS
    ]


def resolve(settings: Training, n: int) -> Training:
    """The settings with `epsilon` turned into the sigma that gives it (`noise_multiplier`).

    Args:
        settings: as `dprobust.training.train` takes them, but for an `epsilon`; without one they come back as they are.
        n: size of the training set.

    Raises:
        UserError: no noise gives that epsilon, or a batch is larger than the training set.
    """
    if settings.epsilon is None:
        return settings
    if settings.batch_size > n:
        raise UserError(f"batch_size {settings.batch_size} is larger than the training set of {n}; use a smaller one")
    asked = settings.model_copy(update={"epsilon": None}).mechanism(n)
    del asked["noise_multiplier"]
    multiplier = noise_multiplier(settings.epsilon, settings.delta, **asked)
    sigma = multiplier if settings.noise == "sigma*clip" else multiplier * settings.clip
    return Training(**(settings.model_dump() | {"sigma": sigma, "epsilon": None, "delta": None}))
