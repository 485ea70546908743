"""Intervals for quantities of models that are trained with some seeds and measured on some images.

Seeds and images are crossed random factors: every model of a run meets the same images. What is estimated is the
quantity of one training, on average over seeds and for all images that the test images are drawn from. Its variance has
a part of the seeds, with as many degrees of freedom as there are seeds less one, and one of the images:

    V = V_seeds + V_images - V_both

* V_seeds: the variance of the quantity over the seeds, divided by their number;
* V_images: that of its mean over the seeds when the images are drawn anew, of all runs and seeds together (by the
  jackknife; of medians by the bootstrap);
* V_both: what is in each of them, the interaction of seeds and images: (W - V_images) / (S - 1), where W is the
  variance of one seed's quantity when the images are drawn anew.

The interval is Student's, with Satterthwaite's degrees of freedom. Its coverage is measured by `dprobust.coverage`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

RESAMPLES = 400
"""Draws of the images."""
CELLS = 4_000_000
"""Weights of images held at a time."""


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The first run's less the second's."""
    return first - second


def ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The second run's over the first's; nan for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return second / first


@dataclass(frozen=True)
class Sample:
    """What a quantity is made of: of each run, values of single images."""

    values: tuple[np.ndarray, ...]
    """Of each run (S, N): a row a seed, a column an image, the same N images in all. nan: the image does not count. All
    runs have the same seeds, or one that stands for itself (given weights)."""
    combine: Callable[..., np.ndarray] = difference
    """Function of an array a run, the images reduced, that gives the quantity; element by element."""
    reduce: Literal["mean", "median"] = "mean"
    """How the values of the images become one. The median is that of ordered values, halfway between two."""
    log: bool = False
    """Whether the interval is made for the logarithm, as befits a ratio."""

    @property
    def seeds(self) -> int:
        return max(len(values) for values in self.values)

    @property
    def images(self) -> int:
        return self.values[0].shape[1]

    def without(self, seed: int) -> "Sample":
        """Without the seed at a place."""
        kept = tuple(values if len(values) == 1 else np.delete(values, seed, axis=0) for values in self.values)
        return replace(self, values=kept)


@dataclass(frozen=True)
class Estimate:
    """A quantity with what is known of its variance, on the scale of the interval (the logarithm of a ratio)."""

    centre: float
    """Mean over seeds."""
    of_seeds: float = 0.0
    """Variance of one training's quantity over seeds, on the images measured; nan for one seed."""
    of_images: float = 0.0
    """Variance of the mean of many seeds that the draw of the images gives."""
    seeds: int = 0
    """0: nothing of it is left to chance."""
    images: int = 0
    freedom: float = math.inf
    """Degrees of freedom of `of_images`."""
    each: tuple[float, ...] = field(default=())
    """The quantity of each seed, as it is read."""
    log: bool = False

    @property
    def exact(self) -> bool:
        """Nothing of it is left to chance."""
        return self.seeds == 0

    @property
    def value(self) -> float:
        """As it is read; of a ratio the geometric mean over seeds."""
        return self._read(self.centre)

    def _read(self, value: float) -> float:
        return float(np.exp(value)) if self.log else float(value)

    def scaled(self, value: float) -> float:
        """A value as it stands on the scale of the interval."""
        return math.log(value) if self.log else value

    def _variance(self, seeds: float, images: float) -> tuple[float, float]:
        """Variance and degrees of freedom of factors times the two parts."""
        if self.seeds == 1:
            return images * self.of_images, self.freedom
        one, other = seeds * self.of_seeds, images * self.of_images
        freedom = one**2 / (self.seeds - 1) + other**2 / self.freedom
        return one + other, (one + other) ** 2 / freedom if freedom else math.inf

    @property
    def error(self) -> tuple[float, float]:
        """Standard error of the mean and its degrees of freedom; of one seed, over images only."""
        if self.exact:
            return 0.0, math.inf
        variance, freedom = self._variance(1 / self.seeds, 1)
        return math.sqrt(variance), freedom

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Low and high end for the quantity; of one seed over images only, for that training."""
        error, freedom = self.error
        reach = float(stdtrit(freedom, (1 + level) / 2)) * error if error else 0.0
        return self._read(self.centre - reach), self._read(self.centre + reach)

    def of_one_run(self, level: float = 0.95, population: int | None = None, theirs: int | None = None) -> tuple:
        """Prediction interval for one further training, measured by another: (low, high); nan with one seed.

        Args:
            level: coverage.
            population: test images that there are, if both draw from them; None for as good as infinitely many.
            theirs: images the other measures on; None for all of the population.
        """
        if self.exact:
            return self.value, self.value
        if self.seeds == 1:
            return math.nan, math.nan
        rest = 1 / population if population else 0.0
        drawn = (1 / theirs if theirs else rest) + 1 / self.images - 2 * rest
        variance, freedom = self._variance(1 + 1 / self.seeds, max(drawn * self.images, 0.0))
        reach = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance) if variance else 0.0
        return self._read(self.centre - reach), self._read(self.centre + reach)

    def p_above(self, null: float) -> float:
        """Twice the one-sided p of the statement that the quantity is above a value; at most 1."""
        error, freedom = self.error
        distance = self.centre - self.scaled(null)
        if not error:
            return 0.0 if distance > 0 else 1.0
        return min(1.0, 2 * float(stdtr(freedom, -distance / error)))

    def p_below(self, null: float) -> float:
        """Twice the one-sided p of the statement that the quantity is below a value; at most 1."""
        mirrored = Estimate(-self.centre, self.of_seeds, self.of_images, self.seeds, self.images, self.freedom)
        return mirrored.p_above(-self.scaled(null))

    def with_seeds(self, seeds: int) -> "Estimate":
        """What it would be with so many seeds, if nothing else changed."""
        return Estimate(
            self.centre, self.of_seeds, self.of_images, seeds, self.images, self.freedom, self.each, self.log
        )


def estimate(sample: Sample, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Estimate a quantity. Seeds that all runs have are paired, and so are images.

    Args:
        sample: what it is made of.
        resamples: draws of the images, for medians.
        seed: of the draws: the same values give the same interval.

    Raises:
        ValueError: values that are no (S, N) of the same images, or numbers of seeds that differ.
    """
    values = [np.asarray(v, dtype=np.float64) for v in sample.values]
    shapes = {v.shape[1] if v.ndim == 2 else None for v in values}
    if len(shapes) != 1 or None in shapes or not all(v.size for v in values):
        raise ValueError(f"values must be (seeds, images) of the same images, found {[v.shape for v in values]}")
    seeds, n = sample.seeds, sample.images
    if {len(v) for v in values} - {1, seeds}:
        raise ValueError("runs must have the same seeds, or one")

    def quantity(reduced: list[np.ndarray]) -> np.ndarray:
        """(B, S) of images reduced, (B, S) a run."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = sample.combine(*reduced)
            found = np.log(found) if sample.log else found
        return np.broadcast_to(found, (len(reduced[0]), seeds))

    if sample.reduce == "mean":
        (each,) = quantity([_mean(v)[None] for v in values])
        without = quantity([_means_without(v) for v in values])
        together, freedom = _jackknife(without.mean(axis=1))
        alone = float(np.mean([_jackknife(column)[0] for column in without.T]))
        return _crossed(each, together, alone, freedom, n, sample.log)
    (each,) = quantity([_medians(v, np.ones((1, n))) for v in values])
    generator, even, block = np.random.default_rng(seed), np.full(n, 1 / n), max(1, CELLS // n)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    weights = (generator.multinomial(n, even, size).astype(np.float64) for size in sizes)
    draws = np.concatenate([quantity([_medians(v, w) for v in values]) for w in weights])
    return bootstrapped(each, draws, n, sample.log)


def bootstrapped(each: np.ndarray, draws: np.ndarray, images: int, log: bool = False) -> Estimate:
    """Estimate a quantity that is no function of means or medians.

    Args:
        each: of each seed, (S,).
        draws: the same when the images are drawn anew, the same for all seeds, (B, S).
        images: their number.
        log: whether both are logarithms, as befits a ratio.
    """
    with np.errstate(invalid="ignore"):
        together, alone = float(draws.mean(axis=1).var(ddof=1)), float(draws.var(axis=0, ddof=1).mean())
    return _crossed(each, together, alone, max(images - 1.0, 1.0), images, log)


def _crossed(each: np.ndarray, together: float, alone: float, freedom: float, images: int, log: bool) -> Estimate:
    """An estimate from the quantity of each seed (S,), the variance by the images of their mean, and that of one."""
    seeds = len(each)
    # Seeds and images together, for one seed: what the seeds' variance has at least.
    mixed = max((alone - together) * seeds / (seeds - 1), 0.0) if seeds > 1 else 0.0
    with np.errstate(invalid="ignore"):
        return Estimate(
            centre=float(each.mean()),
            of_seeds=float(max(each.var(ddof=1), mixed)) if seeds > 1 else math.nan,
            of_images=max(together - mixed / seeds, 0.0) if not math.isnan(together) else math.nan,
            seeds=seeds,
            images=images,
            freedom=freedom,
            each=tuple(map(float, np.exp(each) if log else each)),
            log=log,
        )


def same(values: np.ndarray) -> np.ndarray:
    """The quantity of one run: the mean or median itself."""
    return values


def mean_interval(
    values: np.ndarray, level: float = 0.95, within: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, float]:
    """The mean of values (S, N), a row a seed, a column an image, and the ends of its interval over both; of one seed
    over images only, for that training. The ends stay `within` what the mean can be."""
    found = estimate(Sample((values,), same))
    low, high = found.interval(level)
    return found.value, max(low, within[0]), min(high, within[1])


def summary(
    *values: np.ndarray,
    reduce: Literal["mean", "median"] = "mean",
    within: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, float]:
    """The mean or median of a run, or the first run's less the second's, for a row of numbers.

    Args:
        values: of each run (S, N), a row a seed, a column an image, paired in both.
        reduce: how images become one number.
        within: ends of what the number of one run can be.

    Returns:
        mean (over seeds), low and high (95 % interval over seeds and images; of one seed over images only), seeds.
    """
    found = estimate(Sample(values, difference if len(values) > 1 else same, reduce))
    low, high = found.interval()
    if len(values) == 1:
        low, high = max(low, within[0]), min(high, within[1])
    return {"mean": found.value, "low": low, "high": high, "seeds": found.seeds}


def _mean(values: np.ndarray) -> np.ndarray:
    """(S,) of (S, N): of the images that count."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=1) / (~np.isnan(values)).sum(axis=1)


def _means_without(values: np.ndarray) -> np.ndarray:
    """(N, S): the means without each image."""
    counted = ~np.isnan(values)
    kept = np.where(counted, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((kept.sum(axis=1, keepdims=True) - kept) / (counted.sum(axis=1, keepdims=True) - counted)).T


def _jackknife(without: np.ndarray) -> tuple[float, float]:
    """Variance of a quantity by its values (N,) without each image, and the degrees of freedom of that variance: few
    where few images make it, by the kurtosis."""
    n = len(without)
    with np.errstate(invalid="ignore"):
        off = without - without.mean()
    squares = float((off**2).sum())
    if n < 2 or not squares > 0:
        return (math.nan if n < 2 or math.isnan(squares) else 0.0), max(n - 1.0, 1.0)
    kurtosis = n * float((off**4).sum()) / squares**2
    return squares * (n - 1) / n, max(1.0, 2 * n / max(kurtosis - (n - 3) / (n - 1), 2 * n / (n - 1)))


def _medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B, S) of values (S, N) and weights (B, N)."""
    counted = ~np.isnan(values)
    return np.stack([_median(v[c], weights[:, c]) for v, c in zip(values, counted, strict=True)], axis=1)


def _median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted medians (B,) of values (n,) and weights (B, n), as of values repeated; nan of none.

    Values that many images share stand for all between halfway to their neighbours (the median of grouped data), so
    that a median of whole numbers of steps moves with the share of each.
    """
    levels, place = np.unique(values, return_inverse=True)
    if not len(levels):
        return np.full(len(weights), np.nan)
    if len(levels) == len(values):
        below = np.cumsum(weights[:, np.argsort(values)], axis=1)
        half = below[:, -1:] / 2
        low, high = (below >= half).argmax(axis=1), (below > half).argmax(axis=1)
        return np.where(levels[low] == levels[high], levels[low], (levels[low] + levels[high]) / 2)
    mass = weights @ (place[:, None] == np.arange(len(levels))).astype(np.float64)
    upto = np.cumsum(mass, axis=1)
    half = upto[:, -1] / 2
    at = (upto >= half[:, None]).argmax(axis=1)
    rows = np.arange(len(at))
    ends = np.concatenate([levels[:1], (levels[:-1] + levels[1:]) / 2, levels[-1:]])
    part = (half - (upto[rows, at] - mass[rows, at])) / mass[rows, at]
    with np.errstate(invalid="ignore"):
        inside = ends[at] + part * (ends[at + 1] - ends[at])
    return np.where(np.isfinite(inside), inside, levels[at])


def smallest(samples: Sequence[Sample]) -> "Smallest":
    """The smallest of several quantities of the same runs."""
    return Smallest(tuple(estimate(sample) for sample in samples))


@dataclass(frozen=True)
class Smallest:
    """The smallest of the means over seeds of several quantities, as an `Estimate`.

    That all are above a value is shown if each is (the intersection-union test: no correction). That one is below is
    shown by the lowest of upper ends that are corrected for their number (Bonferroni).
    """

    parts: tuple[Estimate, ...]

    @property
    def lowest(self) -> Estimate:
        return min(self.parts, key=lambda part: part.centre)

    @property
    def value(self) -> float:
        return self.lowest.value

    @property
    def seeds(self) -> int:
        return self.lowest.seeds

    @property
    def images(self) -> int:
        return self.lowest.images

    @property
    def exact(self) -> bool:
        return False

    @property
    def each(self) -> tuple[float, ...]:
        return tuple(map(min, zip(*(part.each for part in self.parts), strict=True)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        corrected = 1 - (1 - level) / len(self.parts)
        return min(p.interval(level)[0] for p in self.parts), min(p.interval(corrected)[1] for p in self.parts)

    def of_one_run(self, level: float = 0.95, population: int | None = None, theirs: int | None = None) -> tuple:
        ends = [part.of_one_run(level, population, theirs) for part in self.parts]
        return min(low for low, _ in ends), min(high for _, high in ends)

    def p_above(self, null: float) -> float:
        return max(part.p_above(null) for part in self.parts)

    def p_below(self, null: float) -> float:
        return min(1.0, len(self.parts) * min(part.p_below(null) for part in self.parts))

    def with_seeds(self, seeds: int) -> "Smallest":
        return Smallest(tuple(part.with_seeds(seeds) for part in self.parts))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979); nan stays nan and does not count."""
    p = np.asarray(p, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order)))))
    return adjusted.tolist()
