"""The temperature at which a network is as confident as another."""

import numpy as np
from scipy.optimize import brentq

from dprobust.errors import UserError

REACH = 60.0
"""The temperature is sought from e to the minus this to e to the plus this."""


def confidence(logits: np.ndarray, temperature: float = 1.0) -> float:
    """The mean of the largest softmax probability.

    Args:
        logits: [N, K], taken as float64.
        temperature: > 0; the logits are divided by it.

    Returns:
        In [1 / K, 1]; it falls with the temperature, but where the largest logits are equal.
    """
    below = np.asarray(logits, dtype=np.float64)
    below = (below - below.max(axis=1, keepdims=True)) / temperature
    return float((1 / np.exp(below).sum(axis=1)).mean())


def matching_temperature(logits: np.ndarray, wanted: float) -> float:
    """The temperature at which the mean of the largest softmax probability is a wanted one, by Brent's method.

    Args:
        logits: [N, K], taken as float64.
        wanted: in (0, 1).

    Raises:
        UserError: no temperature gives it.
    """

    def excess(logarithm: float) -> float:
        return confidence(logits, np.exp(logarithm)) - wanted

    if not excess(-REACH) > 0 > excess(REACH):
        ends = f"{excess(REACH) + wanted:.6g} to {excess(-REACH) + wanted:.6g}"
        raise UserError(f"no temperature gives the confidence {wanted:.6g}: this model's goes from {ends}")
    return float(np.exp(brentq(excess, -REACH, REACH, xtol=1e-13)))
