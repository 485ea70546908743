"""Noise: pixels changed at random, each for itself or all of them by a pattern."""

import numpy as np
from scipy.stats import poisson

from dprobust.corruptions.common import Streams, to_uint8, unit


def gaussian_noise(images: np.ndarray, streams: Streams) -> np.ndarray:
    """x + N(0, 0.38^2)."""
    return to_uint8(unit(images) + 0.38 * streams["noise"].standard_normal(images.shape))


def speckle_noise(images: np.ndarray, streams: Streams) -> np.ndarray:
    """x (1 + N(0, 0.6^2))."""
    return to_uint8(unit(images) * (1 + 0.6 * streams["noise"].standard_normal(images.shape)))


# P(Poisson(3 x) <= k) for k = 0, 1, 2 and each grey level; three photons already saturate a pixel.
_PHOTONS = poisson.cdf(np.arange(3)[:, None], 3 * unit(np.arange(256)))


def shot_noise(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Poisson(3 x) / 3, by inversion of the distribution function."""
    uniform = streams["noise"].random(images.shape)
    return np.uint8(85) * sum((uniform >= cdf[images]).view(np.uint8) for cdf in _PHOTONS)


def impulse_noise(images: np.ndarray, streams: Streams) -> np.ndarray:
    """17 % of the pixels replaced, half of them by black, half by white."""
    uniform = streams["noise"].random(images.shape)
    return np.select([uniform < 0.085, uniform >= 0.915], [np.uint8(0), np.uint8(255)], images)


PESSIMAL_NORM = 10.63 / 4
"""l2 norm of the pessimal noise on its 14x14 tile, in units of [0, 1]."""


def pessimal_noise(images: np.ndarray, streams: Streams, pattern: np.ndarray) -> np.ndarray:
    """x + n, n = z W scaled to the norm `PESSIMAL_NORM`, z ~ N(0, I), a 14x14 tile repeated 2x2.

    `pattern` is W (196, 196), see `dprobust.corruptions.pessimal`, or a pattern (14, 14), for the W of rank
    one whose rows are multiples of it: the noise is that pattern with a random sign.
    """
    matrix = np.asarray(pattern, float)
    if matrix.shape not in ((196, 196), (14, 14)) or not np.isfinite(matrix).all() or not matrix.any():
        expected = "finite numbers of shape (196, 196) or (14, 14), not all zero"
        raise ValueError(f"pattern must be {expected}, found shape {matrix.shape}")
    matrix = matrix.reshape(-1, 196)
    # One product an image, so that its rounding does not depend on the number of images.
    noise = streams["noise"].standard_normal((len(images), 1, len(matrix))) @ matrix
    noise *= PESSIMAL_NORM / np.linalg.norm(noise, axis=2, keepdims=True)
    return to_uint8(unit(images) + np.tile(noise.reshape(-1, 14, 14), (1, 2, 2)))
