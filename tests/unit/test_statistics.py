"""Intervals: against SciPy, and against simulations whose truth is known."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from dprobust.statistics import ratio_interval


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_one_seed_is_scipys_paired_bootstrap(statistic):
    generator = np.random.default_rng(3)
    shared = generator.normal(size=120)
    first = np.exp(shared + 0.3 * generator.normal(size=120))
    second = 3 * np.exp(shared + 0.3 * generator.normal(size=120))
    expected = bootstrap(
        (first, second),
        lambda a, b, axis: statistic(b, axis=axis) / statistic(a, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=8000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    ours = ratio_interval(first[None], second[None], statistic, resamples=8000)
    assert ours == pytest.approx((expected.low, expected.high), rel=0.02)


def test_images_are_paired():
    """What makes an image large for both models cancels; without pairs it would not."""
    generator = np.random.default_rng(3)
    image = np.exp(generator.normal(size=(1, 120)))
    second = 3 * image * np.exp(0.1 * generator.normal(size=(1, 120)))
    paired, apart = ratio_interval(image, second), ratio_interval(image, generator.permuted(second, axis=1))
    assert np.log(apart[1] / apart[0]) > 3 * np.log(paired[1] / paired[0])


@pytest.mark.parametrize(("seeds", "low", "high"), [(1, 0.90, 0.98), (8, 0.88, 0.99)])
def test_covers_the_truth(seeds, low, high):
    """Log-normal values: images differ (both models alike and each by itself), with several seeds models differ too."""
    generator, n, truth, hits, trials = np.random.default_rng(7), 80, 4.0, 0, 300
    for _ in range(trials):
        image = generator.normal(size=n)
        models = []
        for scale in (1.0, truth):
            model = 0.3 * generator.normal(size=(seeds, 1)) * (seeds > 1)
            own = 0.4 * generator.normal(size=(seeds, n))
            models.append(scale * np.exp(image + model + own))
        start, end = ratio_interval(*models, resamples=400)
        hits += start <= truth <= end
    assert low <= hits / trials <= high


def test_seeds_widen_the_interval():
    """Models that differ from seed to seed: an interval over images alone would be far too narrow."""
    generator = np.random.default_rng(1)
    image, factor = np.exp(generator.normal(size=50)), np.exp(np.linspace(-1, 1, 5))[:, None]
    start, end = ratio_interval(np.tile(image, (5, 1)), factor * image)
    assert end / start > 2
    start, end = ratio_interval(np.tile(image, (5, 1)), 3 * np.tile(image, (5, 1)))
    assert (start, end) == pytest.approx((3, 3))


def test_is_deterministic_and_does_not_depend_on_the_size_of_blocks(monkeypatch):
    values = np.exp(np.random.default_rng(0).normal(size=(2, 3, 40)))
    one = ratio_interval(*values)
    assert one == ratio_interval(*values)
    monkeypatch.setattr("dprobust.statistics.BLOCK", 3 * 40 * 100)
    assert ratio_interval(*values) == pytest.approx(one, rel=0.05)


def test_zeros_and_bad_values():
    ones = np.ones((1, 5))
    assert ratio_interval(0 * ones, ones) == (np.inf, np.inf)
    assert np.isnan(ratio_interval(0 * ones, 0 * ones)).all()
    for bad in (np.ones(5), np.ones((1, 4)), np.ones((0, 5)), np.full((1, 5), np.nan)):
        with pytest.raises(ValueError, match="must"):
            ratio_interval(ones, bad)
