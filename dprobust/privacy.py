"""Privacy accounting for the sampler that was really used.

Poisson sampling has tight accountants: Renyi DP (Mironov 2017; Mironov, Talwar, Zhang 2019) and the numerical
composition of privacy random variables (Gopi, Lee, Wutschitz 2021), both from Opacus. Shuffled batches of fixed size
have none; `shuffle_epsilon` is a valid upper bound. All of it is for adding or removing one example.
"""

import math
import warnings
from collections.abc import Iterable
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

ACCOUNTANTS = ("rdp", "prv")


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

    rdp, prv = RDPAccountant(), PRVAccountant()
    rdp.history = prv.history = [(noise_multiplier, sample_rate, steps)]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Opacus warns when the best RDP order is at the end of its list: the bound stays valid, only looser.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        bound = float(rdp.get_epsilon(delta))
        if accountant == "rdp":
            return bound
        # The grid grows with epsilon / eps_error: a fixed error would take all memory where privacy is weak.
        # Where even that fails it gives infinity; the RDP bound holds all the same.
        return min(bound, float(prv.get_epsilon(delta, eps_error=max(0.01, bound / 1000))))


def shuffle_epsilon(noise_multiplier: float, epochs: int, delta: float) -> float:
    """Upper bound on epsilon at `delta` for shuffled batches of fixed size.

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

    def excess(value: float) -> float:
        lower = math.exp(value + norm.logcdf(-value / mu - mu / 2))
        return norm.cdf(-value / mu + mu / 2) - lower - delta

    if excess(0.0) <= 0:
        return 0.0
    upper = 1.0
    while excess(upper) > 0:
        upper *= 2
    return float(brentq(excess, 0.0, upper, xtol=1e-12))


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
        noise_multiplier: standard deviation of the noise divided by C; None for SGD, which guarantees nothing.
        sample_rate: b / N.
        steps: noisy steps taken.
        epochs: passes over the data, for "shuffle".
        deltas: where epsilon is wanted.
    """
    if not noise_multiplier:
        guarantee = "none: no noise is added"
        return [{"delta": d, "accountant": "none", "epsilon": math.inf, "guarantee": guarantee} for d in deltas]
    if sampling == "shuffle":
        guarantee = (
            "upper bound for shuffled batches of fixed size (one Gaussian mechanism an epoch); "
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
