"""Gaussian differential privacy in closed form (Dong, Roth, Su 2022; Balle, Wang 2018)."""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr


def gaussian_delta(mu: float, epsilon: float) -> float:
    """delta of mu-Gaussian DP at `epsilon` (Dong, Roth, Su 2022, Corollary 2.13). mu above 0."""
    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """epsilon of mu-Gaussian DP at `delta` in (0, 1); mu = 0 gives 0, an infinite one infinity."""
    if math.isinf(mu):
        return math.inf
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    upper = 1.0
    while gaussian_delta(mu, upper) > delta:
        upper *= 2
    return float(brentq(lambda value: gaussian_delta(mu, value) - delta, 0.0, upper, xtol=1e-12))
