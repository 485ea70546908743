"""Intervals: against SciPy, closed forms, and simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, t, ttest_1samp

from dprobust import coverage
from dprobust.statistics import (
    Estimate,
    Sample,
    Smallest,
    bootstrapped,
    estimate,
    holm,
    mean_interval,
    ratio,
    same,
    summary,
)

IMAGE = np.random.default_rng(3).normal(size=120)


def test_a_summary_is_the_estimate_of_one_run_or_of_two(rng):
    one, two = rng.random((3, 40)) < 0.05, rng.random((3, 40)) < 0.3
    found = summary(one, within=(0, 1))
    known = estimate(Sample((one,), same))
    assert found["mean"] == known.value and found["seeds"] == 3
    assert known.interval()[0] < 0 == found["low"] and found["high"] == known.interval()[1] < 1
    assert mean_interval(one, within=(0, 1)) == (found["mean"], found["low"], found["high"])
    gap, alone = summary(one, two, within=(0, 1)), estimate(Sample((one.astype(float) - two,), same))
    assert tuple(gap.values())[:3] == pytest.approx((alone.value, *alone.interval())) and gap["low"] < 0
    # A network given as weights stands for itself beside each seed.
    assert summary(one, two[:1])["mean"] == pytest.approx(one.mean() - two[0].mean())
    values = rng.normal(size=(3, 41))
    assert summary(values, reduce="median")["mean"] == pytest.approx(np.median(values, axis=1).mean())


def test_a_bootstrap_of_ones_own_is_that_of_medians(rng):
    values = rng.normal(size=(4, 101)) + rng.normal(size=(4, 1))
    draws = rng.integers(0, 101, (2000, 101))
    medians = np.median(values[:, draws], axis=2).T
    own, known = (
        bootstrapped(np.median(values, axis=1), medians, 101),
        estimate(Sample((values,), same, "median"), 2000),
    )
    assert own.centre == pytest.approx(known.centre) and own.of_seeds == pytest.approx(known.of_seeds, rel=0.05)
    assert own.interval() == pytest.approx(known.interval(), abs=0.1)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def level(only):
    return only


def test_images_that_all_models_see_alike_leave_students_interval_over_seeds():
    """Values that do not depend on the image: seeds alone."""
    each = np.array([1.0, 2.0, 4.0, 4.5, 3.0])
    found = estimate(Sample((np.tile(each[:, None], 50),), level))
    known = ttest_1samp(each, 0.0)
    assert found.interval() == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert found.p_above(0.0) == pytest.approx(known.pvalue) and found.p_below(0.0) == pytest.approx(1.0)
    assert found.each == pytest.approx(tuple(each)) and (found.seeds, found.images) == (5, 50)
    reach = t.ppf(0.975, 4) * each.std(ddof=1) * math.sqrt(1 + 1 / 5)
    assert found.of_one_run() == pytest.approx((each.mean() - reach, each.mean() + reach))


def test_one_seed_is_an_interval_over_images():
    found = estimate(Sample((IMAGE[None], 0.5 * IMAGE[None] + 0.2)))
    off = IMAGE - (0.5 * IMAGE + 0.2)
    assert found.error[0] == pytest.approx(off.std(ddof=1) / math.sqrt(120))
    assert all(math.isnan(end) for end in found.of_one_run())


def test_two_way_components_are_those_of_anova(rng):
    """A balanced two-way layout without replicates: expected mean squares give the same parts."""
    s, n = 6, 80
    values = rng.normal(size=(s, 1)) + rng.normal(size=n) + 0.3 * rng.normal(size=(s, n))
    found = estimate(Sample((values,), level))
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    mixed = (rest**2).sum() / ((s - 1) * (n - 1))
    of_images = (values.mean(0).var(ddof=1) - mixed / s) / n
    assert found.of_seeds == pytest.approx(values.mean(1).var(ddof=1))
    assert found.of_images == pytest.approx(of_images, rel=1e-6)


def test_ratio_of_means_is_the_delta_method_and_of_medians_scipys_bootstrap(rng):
    first = np.exp(0.3 * IMAGE + 0.1 * rng.normal(size=120))
    second = 3 * np.exp(0.3 * IMAGE + 0.2 * rng.normal(size=120))
    found = estimate(Sample((first[None], second[None]), ratio, log=True))
    known = (second / second.mean() - first / first.mean()).std(ddof=1) / math.sqrt(120)
    assert found.error[0] == pytest.approx(known, rel=0.02)
    assert found.value == pytest.approx(second.mean() / first.mean())
    known = bootstrap(
        (first, second),
        lambda a, b, axis: np.log(np.median(b, axis=axis) / np.median(a, axis=axis)),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=rng,
    ).standard_error
    found = estimate(Sample((first[None], second[None]), ratio, "median", log=True), resamples=4000)
    assert found.error[0] == pytest.approx(known, rel=0.05)


def test_images_and_seeds_are_paired(rng):
    """What makes an image or a seed large for both runs cancels."""
    seed = rng.normal(size=(5, 1))
    first = IMAGE + seed + 0.05 * rng.normal(size=(5, 120))
    second = IMAGE + seed + 0.05 * rng.normal(size=(5, 120))
    widths = [np.diff(estimate(Sample(pair)).interval())[0] for pair in ((first, second), (first, second[::-1]))]
    assert widths[1] > 10 * widths[0]
    apart = estimate(Sample((first, rng.permuted(second, axis=1))))
    assert apart.error[0] > 3 * estimate(Sample((first, second))).error[0]


def test_images_that_do_not_count_are_left_out():
    values = np.where(IMAGE > 0, IMAGE, np.nan)[None]
    kept = IMAGE[IMAGE > 0]
    assert estimate(Sample((values,), level)).value == pytest.approx(kept.mean())
    assert estimate(Sample((values,), level, "median")).value == pytest.approx(np.median(kept))


def test_the_median_of_whole_numbers_moves_with_their_shares():
    """Grouped data: 10 ones, 30 twos, 10 threes have the median 2; moving five of them from 1 to 3 moves it by 1/6."""
    values = np.repeat([1.0, 2.0, 3.0], [10, 30, 10])
    other = np.repeat([1.0, 2.0, 3.0], [5, 30, 15])
    medians = [estimate(Sample((v[None],), level, "median")).value for v in (values, other)]
    assert medians == pytest.approx([2.0, 1.5 + 20 / 30])


def test_a_population_that_was_measured_whole_has_no_error_of_images(rng):
    values = 20 * IMAGE + rng.normal(size=(4, 1))
    found = estimate(Sample((values,), level))
    whole, part = found.of_one_run(population=120), found.of_one_run(population=10_000)
    reach = t.ppf(0.975, 3) * math.sqrt(found.of_seeds * 1.25)
    assert whole == pytest.approx((found.value - reach, found.value + reach))
    assert part[1] - part[0] > whole[1] - whole[0]
    assert found.of_one_run(population=10_000, theirs=50)[1] > part[1]


def test_given_weights_stand_for_themselves(rng):
    one, many = IMAGE[None], IMAGE + rng.normal(size=(4, 1))
    found = estimate(Sample((one, many)))
    assert found.seeds == 4 and found.of_seeds == pytest.approx(many.mean(1).var(ddof=1))


def test_smallest_needs_each_above_and_corrects_below():
    parts = [Estimate(centre, 0.04, 0.0, 5, 100) for centre in (0.5, 0.6, 2.0)]
    found = Smallest(tuple(parts))
    assert found.value == 0.5 and found.interval()[0] == parts[0].interval()[0]
    assert found.interval()[1] == parts[0].interval(1 - 0.05 / 3)[1] > parts[0].interval()[1]
    assert found.p_above(0) == parts[0].p_above(0) and found.p_below(1) == pytest.approx(3 * parts[0].p_below(1))


def test_is_deterministic_and_refuses_what_is_no_sample(monkeypatch, rng):
    values = np.exp(rng.normal(size=(3, 40)))
    sample = Sample((values,), level, "median")
    one = estimate(sample)
    assert one == estimate(sample)
    monkeypatch.setattr("dprobust.statistics.CELLS", 40 * 7)
    assert estimate(sample).of_images == pytest.approx(one.of_images, rel=0.3)
    for bad in ((np.ones(5),), (np.ones((1, 4)), np.ones((1, 5))), (np.ones((2, 4)), np.ones((3, 4)))):
        with pytest.raises(ValueError, match="must"):
            estimate(Sample(bad))


def test_zeros_have_no_ratio():
    ones = np.ones((2, 5))
    assert all(math.isnan(end) for end in estimate(Sample((0 * ones, 0 * ones), ratio, log=True)).interval())


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


TRIALS = 300


@pytest.mark.parametrize("name", coverage.CASES)
def test_covers_the_truth_at_five_seeds(name):
    """93 % or more, less two standard errors of the simulation."""
    share, _ = coverage.coverage(coverage.CASES[name], coverage.components, TRIALS)
    assert share >= 0.93 - 2 * math.sqrt(0.93 * 0.07 / TRIALS)


def test_seeds_alone_would_not_cover():
    """The simulation can tell: as if the images were all there are, far fewer intervals hold the truth."""
    case = coverage.CASES["accuracies 84 and 78 %, 1,000 images, seeds hardly differ"]
    assert coverage.coverage(case, coverage.seeds_alone, 200)[0] < 0.85
