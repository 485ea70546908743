"""Intervals over images and seeds: by the bootstrap, and of a mean by its variance components."""

from collections.abc import Callable

import numpy as np
from scipy import stats

BLOCK = 4_000_000
"""Values held at a time."""


def ratio_interval(
    first: np.ndarray,
    second: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of statistic(second) / statistic(first) of two models measured on the same images.

    Percentiles of the bootstrap with crossed factors (Owen 2007, "The pigeonhole bootstrap"): each resample draws seeds
    and images with replacement, and takes all that was measured on the images drawn by the models of the seeds drawn.
    Images are paired: both models get the same ones. Seeds are drawn for each model by itself, since equal seeds of two
    models have nothing to do with one another. The statistic is of all values of a resample together.

    A few seeds say little of how models vary: with S of them that share of the variance is too small by a factor of
    (S - 1) / S, and with one seed the interval is that of this pair of models.

    Args:
        first, second: values (S1, N) and (S2, N), a row a seed, a column an image; without nan.
        statistic: function of an array and `axis` (a tuple), such as np.mean and np.median.
        level: coverage, between 0 and 1.
        resamples: number of resamples.
        seed: of the draws: the same values give the same interval.

    Returns:
        Low and high end. Where the first model's statistic is 0 in a resample, its ratio is infinite.

    Raises:
        ValueError: arrays that are no (S, N) of the same N >= 1, or hold nan.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.size or not second.size:
        raise ValueError(f"values must be (seeds, images) of the same images, found {first.shape} and {second.shape}")
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("values must not be nan")
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // max(first.size, second.size))
    ratios = []
    for start in range(0, resamples, block):
        n = min(block, resamples - start)
        images = generator.integers(first.shape[1], size=(n, 1, first.shape[1]))
        parts = []
        for values in (first, second):
            seeds = generator.integers(len(values), size=(n, len(values), 1))
            parts.append(statistic(values[seeds, images], axis=(1, 2)))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(parts[1] / parts[0])
    ratios = np.concatenate(ratios)
    # No interpolation: a ratio may be infinite. 0 / 0 is no ratio.
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.nanquantile(ratios, ends, method="inverted_cdf") if not np.isnan(ratios).all() else (np.nan, np.nan)
    return float(low), float(high)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """A mean over seeds and images, and a t-interval for the mean over all seeds and images there could be.

    Seeds and images are crossed random effects: the variance of the mean is (A + B - E) / (S N), with A, B and E the
    mean squares of seeds, images and the rest, and its degrees of freedom are Satterthwaite's (Searle, Casella and
    McCulloch 1992, "Variance Components"). A variance below A / (S N) or B / (S N) is taken to be the larger of them.

    Args:
        values: (S, N), a row a seed, a column an image; without nan. Of one seed the interval is over images alone, of
            one image over seeds alone.
        level: coverage, between 0 and 1.

    Returns:
        The mean, the low and the high end; nan ends of a single value.
    """
    values = np.asarray(values, dtype=np.float64)
    s, n = values.shape
    mean, rows, columns = values.mean(), values.mean(1), values.mean(0)
    if s * n == 1:
        return float(mean), float("nan"), float("nan")
    a = n * rows.var(ddof=1) if s > 1 else 0.0
    b = s * columns.var(ddof=1) if n > 1 else 0.0
    rest = (values - rows[:, None] - columns + mean) if s > 1 and n > 1 else np.zeros(1)
    e = (rest**2).sum() / max((s - 1) * (n - 1), 1)
    total = a + b - e
    if total > max(a, b):
        df = total**2 / sum(x**2 / k for x, k in ((a, s - 1), (b, n - 1), (e, (s - 1) * (n - 1))) if k)
    else:
        total, df = max((a, s - 1), (b, n - 1))
    half = stats.t.ppf((1 + level) / 2, df) * np.sqrt(total / (s * n)) if total else 0.0
    return float(mean), float(mean - half), float(mean + half)
