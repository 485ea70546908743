"""Poisson sampling: each example is in each batch with probability q, independently.

Renyi DP (Mironov, Talwar, Zhang 2019) and composition of privacy random variables (PRV; Gopi, Lee, Wutschitz 2021) are
Opacus'; privacy loss distributions (PLD; Koskela, Jaelkoe, Honkela 2020; Doroshenko et al. 2022) are dp-accounting's,
which also bounds batches with a cap (Ganesh et al. 2025, arXiv 2508.15089). All are upper bounds.

Arguments everywhere: noise multiplier above 0, rate q in (0, 1], steps at least 1, delta in (0, 1).
"""

import math
import warnings
from typing import Any

import numpy as np

from dprobust.accounting.adjacency import ADD_OR_REMOVE, REPLACE
from dprobust.accounting.gaussian import gaussian_epsilon

POINTS = 3e4
"""Grid points of a privacy loss distribution between 0 and the smaller one of RDP's epsilon and 15 standard deviations
of the privacy loss; its error falls with their square."""
MOST = 5e4
"""Grid points of the loss of one step, at most."""


def _opacus(kind: str, noise_multiplier: float, rate: float, steps: int, delta: float, **options: float) -> float:
    from opacus import accountants  # it imports torch

    accountant = getattr(accountants, kind)()
    accountant.history = [(noise_multiplier, rate, steps)]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Opacus warns when the best RDP order is at the end of its list: the bound stays valid, only looser.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(delta, **options))


def rdp(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    """epsilon by Renyi DP, for adding or removing one example."""
    try:
        return _opacus("RDPAccountant", noise_multiplier, rate, steps, delta)
    except ValueError:  # differences that round to less than 0, at very large noise
        return _opacus("RDPAccountant", noise_multiplier, 1.0, steps, delta)  # all examples: never more private


def prv(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    """epsilon by privacy random variables, for adding or removing one example; never above RDP's.

    The upper end of an interval of 0.01, or of 0.1 % of RDP's epsilon above 10.
    """
    bound = rdp(noise_multiplier, rate, steps, delta)
    # The grid grows with epsilon / eps_error: a fixed error would take all memory where privacy is weak.
    # Where even that fails, by an error, infinity, nan or less than 0, the RDP bound holds all the same.
    try:
        error = max(0.01, bound / 1000)
        tight = _opacus("PRVAccountant", noise_multiplier, rate, steps, delta, eps_error=error)
    except (RuntimeError, ValueError):
        return bound
    return tight if 0 < tight < bound else bound


def pld(
    noise_multiplier: float,
    rate: float,
    steps: int,
    delta: float,
    adjacency: str = ADD_OR_REMOVE,
    cap: int | None = None,
    examples: int | None = None,
) -> float:
    """epsilon by privacy loss distributions.

    Args:
        noise_multiplier, rate, steps, delta: see above.
        adjacency: `ADD_OR_REMOVE` or `REPLACE`.
        cap: the largest batch; of a larger one, so many examples are kept at random. None: no cap.
        examples: size of the training set (of the larger neighbour); only with a cap.
    """
    moved = 2.0 if adjacency == REPLACE or cap is not None else 1.0  # what one example moves the sum by, over C
    bound = gaussian_epsilon(moved * math.sqrt(steps) / noise_multiplier, delta)  # as if it were in every batch
    if moved == 1:
        bound = min(bound, rdp(noise_multiplier, rate, steps, delta))
    if bound == 0:
        return 0.0
    grid = min(bound, 15 * _spread(noise_multiplier, rate, steps)) / POINTS
    grid = max(grid, _reach(noise_multiplier if cap is None else noise_multiplier / 2, rate) / MOST)
    try:
        with np.errstate(all="ignore"):
            found = _dp_accounting(noise_multiplier, rate, steps, delta, adjacency, cap, examples, grid)
    except (ValueError, OverflowError, FloatingPointError):  # noise beyond what its grids can hold
        return bound
    return min(found, bound) if found >= 0 else bound


def _dp_accounting(noise_multiplier: float, *arguments: Any) -> float:
    import dp_accounting
    from dp_accounting import pld as distributions

    rate, steps, delta, adjacency, cap, examples, grid = arguments
    relation = dp_accounting.NeighboringRelation
    neighbours = relation.REPLACE_ONE if adjacency == REPLACE else relation.ADD_OR_REMOVE_ONE
    if cap is None:
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    else:
        event = dp_accounting.TruncatedSubsampledGaussianDpEvent(examples, rate, cap, noise_multiplier)
    accountant = distributions.PLDAccountant(neighbours, value_discretization_interval=grid)
    return float(accountant.compose(event, steps).get_epsilon(delta))


def _spread(noise_multiplier: float, rate: float, steps: int) -> float:
    """About the standard deviation of the privacy loss: mu of the central limit theorem (Bu et al. 2020)."""
    exponent = noise_multiplier**-2
    return math.inf if exponent > 500 else rate * math.sqrt(steps * math.expm1(exponent))


def _reach(noise_multiplier: float, rate: float) -> float:
    """About the largest loss of one step that is on a grid: where the noise is ten standard deviations."""
    exponent = 10 / noise_multiplier + 0.5 / noise_multiplier**2
    return math.log1p(rate * math.expm1(exponent)) if exponent < 500 else exponent
