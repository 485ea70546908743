"""How often intervals hold the truth, where it is known: `python -m dprobust.coverage` prints the table of
docs/statistics.md.

Models of SEEDS seeds a run meet the same images. What an image does to every model, what a seed does to every image,
and what is a model's and an image's alone are drawn; the truth is the quantity of one training on infinitely many
images, on average over seeds (for a ratio, the geometric mean).
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from dprobust.statistics import Sample, difference, estimate, ratio, smallest

SEEDS = 5
LEVEL = 0.95
RUN = 0.6
"""Standard deviation of what an image does to all models of a run; what it does to the models of all runs has 1."""


class Case(NamedTuple):
    """A situation with a known truth."""

    draw: Callable[[np.random.Generator, int, int | None], tuple[np.ndarray, ...]]
    """Values (S, N) of each run, of a generator, S and N (None: the case's own)."""
    combine: Callable[..., np.ndarray] = difference
    reduce: str = "mean"
    log: bool = False
    truth: float | None = None
    """None: the average of many trainings on many images."""


def _latent(generator: np.random.Generator, seeds: int, n: int, of_seeds: float, own: float, runs: int = 2) -> list:
    """Of each run (S, N): image + image for this run + seed + their own, normal."""
    image = generator.normal(size=n)
    return [
        image
        + RUN * generator.normal(size=n)
        + of_seeds * generator.normal(size=(seeds, 1))
        + own * generator.normal(size=(seeds, n))
        for _ in range(runs)
    ]


def _right(bounds: tuple[float, ...], n: int, of_seeds: float, own: float) -> Case:
    """Accuracies: a run's share is that of latent values above its bound."""

    def draw(generator: np.random.Generator, seeds: int, images: int | None) -> tuple[np.ndarray, ...]:
        latent = _latent(generator, seeds, images or n, of_seeds, own)
        return tuple((z > bound).astype(float) for z, bound in zip(latent, bounds, strict=True))

    share = [norm.sf(bound / np.sqrt(1 + RUN**2 + of_seeds**2 + own**2)) for bound in bounds]
    return Case(draw, truth=share[0] - share[1])


def _skewed(n: int, spread: float, of_seeds: float, reduce: str) -> Case:
    """Log-normal values, the second run's four times the first's."""

    def draw(generator: np.random.Generator, seeds: int, images: int | None) -> tuple[np.ndarray, ...]:
        first, second = _latent(generator, seeds, images or n, of_seeds, 0.5)
        return np.exp(spread * first), 4 * np.exp(spread * second)

    return Case(draw, ratio, reduce, True, truth=4.0)


def _steps(n: int) -> Case:
    """Whole numbers of steps, the second run's fewer; those above 40 are cut."""

    def draw(generator: np.random.Generator, seeds: int, images: int | None) -> tuple[np.ndarray, ...]:
        first, second = _latent(generator, seeds, images or n, 0.15, 0.5)
        return tuple(np.clip(np.ceil(m * np.exp(0.4 * z)), 1, 41) for m, z in ((14, first), (11, second)))

    return Case(draw, difference, "median")


def _curves(n: int) -> Case:
    """The smallest of the differences between two accuracy curves at seven radii."""
    radii = np.linspace(0.2, 2.0, 7)

    def draw(generator: np.random.Generator, seeds: int, images: int | None) -> tuple[np.ndarray, ...]:
        first, second = _latent(generator, seeds, images or n, 0.2, 0.4)
        return tuple((2.5 + z > k * r).astype(float) for r in radii for z, k in ((first, 1.0), (second, 1.15)))

    scale = np.sqrt(1 + RUN**2 + 0.2**2 + 0.4**2)
    shares = [norm.cdf((2.5 - k * radii) / scale) for k in (1.0, 1.15)]
    return Case(
        draw,
        lambda *a: np.min([a[i] - a[i + 1] for i in range(0, len(a), 2)], axis=0),
        truth=min(shares[0] - shares[1]),
    )


def _trend(n: int) -> Case:
    """Slope over five runs of a sweep."""
    place = np.arange(5) - 2.0

    def draw(generator: np.random.Generator, seeds: int, images: int | None) -> tuple[np.ndarray, ...]:
        latent = _latent(generator, seeds, images or n, 0.15, 0.5, runs=5)
        return tuple((z > 0.1 * i).astype(float) for i, z in enumerate(latent))

    share = norm.sf(0.1 * np.arange(5) / np.sqrt(1 + RUN**2 + 0.15**2 + 0.5**2))
    return Case(draw, lambda *a: sum(w * x for w, x in zip(place / 10, a, strict=True)), truth=place @ share / 10)


CASES = {
    "accuracies 84 and 78 %, 1,000 images": _right((-1.15, -0.9), 1000, 0.15, 0.5),
    "accuracies 84 and 78 %, 1,000 images, seeds hardly differ": _right((-1.15, -0.9), 1000, 0.01, 0.5),
    "accuracies 84 and 78 %, 100 images": _right((-1.15, -0.9), 100, 0.15, 0.5),
    "accuracies 1 and 0.5 %, 1,000 images": _right((2.61, 2.89), 1000, 0.15, 0.5),
    "accuracies 1 and 0.5 %, 10,000 images": _right((2.61, 2.89), 10_000, 0.15, 0.5),
    "accuracies 1 and 0.5 %, 1,000 images, seeds hardly differ": _right((2.61, 2.89), 1000, 0.01, 0.5),
    "ratio of mean distances, skewed, 1,000 images": _skewed(1000, 0.5, 0.15, "mean"),
    "ratio of mean eigenvalues, heavy tails, 100 images": _skewed(100, 2.0, 0.3, "mean"),
    "ratio of median eigenvalues, heavy tails, 100 images": _skewed(100, 2.0, 0.3, "median"),
    "difference of median steps, 1,000 images": _steps(1000),
    "smallest gap over 7 radii, 1,000 images": _curves(1000),
    "trend over 5 runs, 1,000 images": _trend(1000),
}


def truth(case: Case) -> float:
    """The quantity of one training on infinitely many images, on average."""
    if case.truth is not None:
        return case.truth
    generator = np.random.default_rng(11)
    each = [estimate(_sample(case, case.draw(generator, 1, 20_000)), resamples=2).centre for _ in range(400)]
    return float(np.mean(each))


def _sample(case: Case, values: tuple[np.ndarray, ...]) -> Sample:
    return Sample(values, case.combine, case.reduce, case.log)


def components(sample: Sample) -> tuple[float, float]:
    """The method of `dprobust.statistics`."""
    if len(sample.values) == 14:  # curves
        return smallest([Sample(sample.values[i : i + 2]) for i in range(0, 14, 2)]).interval(LEVEL)
    return estimate(sample, resamples=200).interval(LEVEL)


def seeds_alone(sample: Sample) -> tuple[float, float]:
    """Student's interval over the seeds, as if the images were all there are."""
    each = np.array(estimate(sample, resamples=2).each)
    each = np.log(each) if sample.log else each
    reach = t.ppf((1 + LEVEL) / 2, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    ends = np.array([each.mean() - reach, each.mean() + reach])
    return tuple(np.exp(ends) if sample.log else ends)


def pigeonhole(sample: Sample) -> tuple[float, float]:
    """Percentiles of the bootstrap that draws seeds and images (Owen 2007)."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        images = generator.integers(sample.images, size=sample.images)
        drawn = tuple(v[generator.integers(len(v), size=len(v))][:, images] for v in sample.values)
        found.append(_pooled(sample, drawn))
    return tuple(np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def jackknife(sample: Sample, groups: int = 20) -> tuple[float, float]:
    """Two-way jackknife of the pooled quantity: a seed, or one of 20 groups of images, left out; degrees of freedom by
    Satterthwaite."""
    scale = np.log if sample.log else np.asarray
    whole = scale(_pooled(sample, sample.values))
    seeds = sample.seeds
    left = [scale(_pooled(sample, sample.without(s).values)) for s in range(seeds)]
    group = np.arange(sample.images) % groups
    cut = [scale(_pooled(sample, tuple(v[:, group != g] for v in sample.values))) for g in range(groups)]
    one, other = (np.var(x) * (len(x) - 1) for x in (left, cut))
    if not one + other > 0:
        return whole, whole
    freedom = (one + other) ** 2 / (one**2 / (seeds - 1) + other**2 / (groups - 1))
    reach = t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(one + other)
    ends = np.array([whole - reach, whole + reach])
    return tuple(np.exp(ends) if sample.log else ends)


def _pooled(sample: Sample, values: tuple[np.ndarray, ...]) -> float:
    how = np.mean if sample.reduce == "mean" else np.median
    return float(sample.combine(*(how(v, axis=(0, 1)) for v in values)))


METHODS = {
    "components": components,
    "jackknife": jackknife,
    "pigeonhole bootstrap": pigeonhole,
    "seeds alone": seeds_alone,
}


def coverage(case: Case, method: Callable[[Sample], tuple], trials: int, seed: int = 0) -> tuple[float, float]:
    """Share of intervals that hold the truth, and the median width of an interval."""
    generator, true, hits, widths = np.random.default_rng(seed), truth(case), 0, []
    for _ in range(trials):
        low, high = method(_sample(case, case.draw(generator, SEEDS, None)))
        hits += low <= true <= high
        widths.append(np.log(high / low) if case.log else high - low)
    return hits / trials, float(np.median(widths))


def main(trials: int = 400) -> None:
    """Print coverage in percent of each method."""
    print(f"| {SEEDS} seeds, {trials} trials | {' | '.join(METHODS)} |\n| --- |{' --- |' * len(METHODS)}")
    for name, case in CASES.items():
        shares = [100 * coverage(case, method, trials)[0] for method in METHODS.values()]
        print(f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
