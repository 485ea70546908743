"""Balls in bins: in each epoch each example goes into one of t batches, drawn uniformly and by itself.

An epoch is dominated by the pair P = mean over i of N(e_i, sigma^2 I), Q = N(0, sigma^2 I) in t dimensions, for an
example that is there or not, adaptive steps among them (Chua et al. 2024, arXiv 2412.16802; Feldman, Shenfeld 2025,
arXiv 2502.08202), and epochs, drawn anew, compose (Zhu, Dong, Wang 2022). Chua et al. bound its hockey-stick divergence
by Monte Carlo; here it is bounded by arithmetic, with certainty up to the round-off of Fourier transforms:

* The likelihood ratio P / Q is the mean of t independent B_i = exp(z_i / sigma - 1 / (2 sigma^2)), z_i standard normal
  under Q. Splitting the mass of each B_i among the two neighbouring points of a grid, such that its mean stays, makes
  it larger in convex order, hence their mean, hence every hockey-stick divergence E_Q[(P / Q - e^epsilon)+] in both
  directions: the pair of the grid dominates (Blackwell), with an error that falls with the square of the grid. The sum
  of t is one Fourier transform; under P, one B_i is drawn by its own size.
* What lies above the grid is counted as certain loss. Then the ratio is moved to a grid of its logarithm in the same
  way (Doroshenko et al. 2022, "connect the dots"), and dp-accounting composes the epochs.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from dprobust.accounting.gaussian import gaussian_epsilon

NEGLIGIBLE = 1e-4
"""Share of delta that the tails beyond the grids may take over all epochs."""
MOST = 4_000_000
"""Grid points of the loss of an epoch, at most."""

Array = np.ndarray


def bins(noise_multiplier: float, steps: int, epochs: int, delta: float) -> float:
    """epsilon at `delta` of `epochs` epochs, for adding or removing one example; the number of batches stays.

    Args:
        noise_multiplier: above 0.
        steps: t, the batches of an epoch, at least 1.
        epochs: at least 1.
        delta: in (0, 1).

    Returns:
        The smaller one of the bound above and of Gaussian DP with mu = sqrt(epochs) / noise_multiplier, which knows in
        which batch the example is. For noise multipliers below about 0.5 and delta below about 1e-10 that is what is
        left: valid, and loose.
    """
    bound = gaussian_epsilon(math.sqrt(epochs) / noise_multiplier, delta)
    exponent = noise_multiplier**-2
    if steps == 1 or bound == 0 or exponent > 8:  # no grid would do
        return bound
    from dp_accounting.pld import pld_pmf, privacy_loss_distribution

    spread = math.sqrt(math.expm1(exponent) / steps)  # about that of an epoch's loss
    grid = min(math.sqrt(epochs) * spread, bound) / 5000
    # What is cut off is more than the round-off of a transform: for smaller delta the bound gets loose, never wrong.
    tail = max(delta * NEGLIGIBLE / epochs, 1e-13)
    ratios = _ratios(noise_multiplier, steps, tail)
    losses = [_losses(ratio, grid, tail, present) for present, ratio in zip((True, False), ratios, strict=True)]
    if any(len(masses) > MOST for _, masses, _ in losses):
        return bound
    removal, addition = (pld_pmf.DensePLDPmf(grid, first, masses, beyond, True) for first, masses, beyond in losses)
    composed = privacy_loss_distribution.PrivacyLossDistribution(removal, addition).self_compose(epochs)
    return min(float(composed.get_epsilon_for_delta(delta)), bound)


@dataclass(frozen=True)
class _Ratio:
    """The distribution of P / Q: `masses` at least, least + width, ..., and the mass `beyond`, of certain loss."""

    least: float
    width: float
    masses: Array
    beyond: float


def _ratios(noise_multiplier: float, steps: int, tail: float) -> tuple[_Ratio, _Ratio]:
    """P / Q under P and under Q. About the mass `tail` is cut off at each end."""
    mean = 0.5 / noise_multiplier**2
    lowest = math.exp(-mean + ndtri(tail / steps) / noise_multiplier)  # B on the grid: any of t may be less under Q,
    largest = math.exp(mean - ndtri(tail) / noise_multiplier)  # and the example's own may be more under P
    length = 3 * (largest - lowest) + 4 * steps * (1 - lowest)
    points = 2**19 if largest < 1e3 else 2**20 if largest < 3e4 else 2**22
    width = length / points
    edges = np.log(lowest + width * np.arange(int((largest - lowest) / width) + 2))

    under_q, under_p = (_masses((edges + sign * mean) * noise_multiplier) for sign in (1, -1))
    lower = lowest + width * np.arange(len(under_q))
    upward = np.clip((under_p - lower * under_q) / width, 0, under_q)  # of a cell's mass, so that its mean stays
    b = np.zeros(points)
    b[: len(under_q)] = under_q - upward
    b[1 : len(under_q) + 1] += upward
    # Below the grid: raised to it, which adds to the loss under P; under Q, where it takes from it, certain loss.
    below = float(ndtr((edges[0] + mean) * noise_multiplier))
    b[0] += below + ndtr(-(edges[-1] + mean) * noise_multiplier)  # above the grid: certain loss under P
    sized = b * (lowest + width * np.arange(points))

    transformed = np.fft.rfft(b)
    others = transformed ** (steps - 1)
    above = float(ndtr(-(edges[-1] - mean) * noise_multiplier))
    above += _overflow(b, width, steps - 1, length - (largest - lowest) - 2 * width)
    least = (lowest, width / steps)
    present = np.maximum(np.fft.irfft(np.fft.rfft(sized) * others, points), 0)
    absent = np.maximum(np.fft.irfft(transformed * others, points), 0)
    return _Ratio(*least, present, above), _Ratio(*least, absent, steps * below)


def _masses(z: Array) -> Array:
    """The mass of a standard normal between neighbouring points, each to full precision."""
    below, above = ndtr(z), ndtr(-z)
    return np.where(z[:-1] < 0, np.diff(below), -np.diff(above))


def _overflow(b: Array, width: float, count: int, limit: float) -> float:
    """Chernoff's bound on the probability that the sum of `count` draws exceeds `limit` (a transform would wrap it)."""
    used = np.flatnonzero(b)
    masses, values = b[used], width * used
    exponents = np.array([2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0]) / values[-1]
    return float(min(math.exp(min(count * math.log(masses @ np.exp(x * values)) - x * limit, 0.0)) for x in exponents))


def _losses(ratio: _Ratio, grid: float, tail: float, present: bool) -> tuple[int, Array, float]:
    """The loss on multiples of `grid`: which is the first, their masses, and the mass of infinite loss.

    The loss is the logarithm of the ratio, under P (`present`), or less than that, under Q. Of the `tail` of small
    losses the loss is raised, that of the large ones is certain.
    """
    sums = np.cumsum(ratio.masses)
    start, stop = np.searchsorted(sums, [tail, sums[-1] - tail])
    mass = ratio.masses[start : stop + 1].copy()
    low, high = sums[start] - mass[0], sums[-1] - sums[stop]
    mass[0 if present else -1] += low if present else high
    loss = np.log(ratio.least + ratio.width * np.arange(start, stop + 1))

    cell = np.floor(loss / grid)
    rest = loss - cell * grid
    upward = np.clip(np.expm1(rest) / math.expm1(grid), 0, 1)  # under Q, so that the mean of the ratio stays
    if present:
        upward = upward * np.exp(grid - rest)
    below = cell.astype(np.int64)
    first = int(below.min())
    found = np.bincount(below - first, weights=mass * (1 - upward), minlength=int(below.max()) - first + 2)
    found += np.bincount(below - first + 1, weights=mass * upward, minlength=len(found))
    if present:
        return first, found, float(ratio.beyond + high)
    return 1 - first - len(found), found[::-1].copy(), float(ratio.beyond + low)
