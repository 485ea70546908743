"""Accounting against published numbers, closed forms and the limits of the formulas."""

import math
import warnings

import pytest
from scipy import integrate, stats

from dprobust.errors import UserError
from dprobust.privacy import account, epsilon, noise_multiplier, shuffle_epsilon
from dprobust.recipe import Training

Q, STEPS = 256 / 60_000, 11_700

TABLE = [  # sigma, delta, RDP, PRV; N 60,000, batch 256, 50 epochs
    (0.7, 1e-6, 7.47, 6.77),
    (1.0, 1e-6, 3.12, 2.90),
    (1.3, 1e-6, 2.02, 1.89),
    (1.5, 1e-6, 1.65, 1.54),
    (2.0, 1e-6, 1.14, 1.06),
    (0.7, 1e-5, 6.63, 5.96),
    (1.0, 1e-5, 2.79, 2.56),
    (1.3, 1e-5, 1.80, 1.66),
    (1.5, 1e-5, 1.47, 1.35),
    (2.0, 1e-5, 1.01, 0.93),
]


@pytest.mark.parametrize(("sigma", "delta", "rdp", "prv"), TABLE)
def test_mnist(sigma, delta, rdp, prv):
    assert epsilon(sigma, Q, STEPS, delta, "rdp") == pytest.approx(rdp, abs=0.006)
    assert epsilon(sigma, Q, STEPS, delta, "prv") == pytest.approx(prv, abs=0.011)


@pytest.mark.parametrize(("delta", "rdp", "prv"), [(1e-6, 6.38, 5.97), (1e-5, 5.78, 5.35)])
def test_cifar10(delta, rdp, prv):
    assert epsilon(1.0, 200 / 50_000, 50_000, delta, "rdp") == pytest.approx(rdp, abs=0.006)
    assert epsilon(1.0, 200 / 50_000, 50_000, delta, "prv") == pytest.approx(prv, abs=0.011)


def test_the_papers_claim():
    """epsilon < 5 at delta 1e-6 holds for sigma 1.3 up to 264 epochs by RDP, and not for sigma 0.7."""
    assert epsilon(1.3, Q, 264 * 234, 1e-6, "rdp") < 5 < epsilon(1.3, Q, 265 * 234, 1e-6, "rdp")
    assert epsilon(0.7, Q, STEPS, 1e-6, "prv") > 5


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_full_batches_are_the_gaussian_mechanism(accountant):
    """At q = 1 the exact answer is known: Gaussian DP with mu = sqrt(steps) / sigma."""
    exact = shuffle_epsilon(5.0, 40, 1e-5)
    found = epsilon(5.0, 1.0, 40, 1e-5, accountant)
    assert exact <= found <= exact * (1.1 if accountant == "rdp" else 1.01)


@pytest.mark.parametrize(("sigma", "value"), [(0.7, 98.2), (1.0, 57.9), (1.3, 39.9), (1.5, 32.8), (2.0, 22.4)])
def test_shuffle_bound(sigma, value):
    assert shuffle_epsilon(sigma, 50, 1e-6) == pytest.approx(value, abs=0.06)


@pytest.mark.parametrize(("sigma", "epochs"), [(1.3, 1), (1.3, 50), (20.0, 3)])
def test_shuffle_bound_is_the_hockey_stick_divergence(sigma, epochs):
    """delta at the returned epsilon, by integrating max(0, p - e^eps q) of N(mu, 1) against N(0, 1)."""
    mu, delta = math.sqrt(epochs) / sigma, 1e-4
    eps = shuffle_epsilon(sigma, epochs, delta)

    def excess(x):
        return max(0.0, stats.norm.pdf(x - mu) - math.exp(eps + stats.norm.logpdf(x)))

    threshold = eps / mu + mu / 2
    found = integrate.quad(excess, threshold, threshold + 12)[0]
    assert found == pytest.approx(delta, rel=1e-4)


def test_limits():
    for accountant in ("rdp", "prv"):
        assert epsilon(0.0, Q, 10, 1e-6, accountant) == math.inf
        assert epsilon(1.3, Q, 0, 1e-6, accountant) == 0.0
    assert shuffle_epsilon(0.0, 3, 1e-6) == math.inf
    assert shuffle_epsilon(1.3, 0, 1e-6) == 0.0
    assert shuffle_epsilon(1e9, 1, 1e-3) == 0.0


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.433, 13.0, 100.0, 1e4, 1e6])
def test_weak_and_strong_noise(sigma):
    """PRV neither fails nor warns nor takes all memory at either end, and stays below RDP."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prv, rdp = (epsilon(sigma, Q, STEPS, 1e-6, a) for a in ("prv", "rdp"))
    assert 0 < prv <= rdp < math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, Q, 10, 1e-6), "noise_multiplier"),
        ((1.0, 0.0, 10, 1e-6), "sample_rate"),
        ((1.0, 1.1, 10, 1e-6), "sample_rate"),
        ((1.0, Q, -1, 1e-6), "steps"),
        ((1.0, Q, 10, 0.0), "delta"),
        ((1.0, Q, 10, 1e-6, "gdp"), "accountant must be one of rdp, prv"),
        ((math.nan, Q, 10, 1e-6), "noise_multiplier"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        epsilon(*arguments)


def test_account_says_what_holds():
    poisson = account("poisson", 1.3, Q, STEPS, 50, [1e-6])
    assert [row["accountant"] for row in poisson] == ["rdp", "prv"]
    assert poisson[1]["epsilon"] == epsilon(1.3, Q, STEPS, 1e-6, "prv")
    (shuffled,) = account("shuffle", 1.3, Q, STEPS, 50, [1e-6])
    assert shuffled["epsilon"] == pytest.approx(39.9, abs=0.06)
    assert "upper bound" in shuffled["guarantee"] and "Poisson accounting does not apply" in shuffled["guarantee"]
    assert "becoming zero (not for adding, removing or replacing" in shuffled["guarantee"]


@pytest.mark.parametrize("sampling", ["poisson", "shuffle"])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "not clipped"),
        ({"sigma": 1.3, "noise": "sigma"}, "not clipped"),
        ({"clip": 1.0}, "clipped, but no noise"),
        ({"clip": 1.0, "sigma": 0.0}, "clipped, but no noise"),
    ],
)
def test_clipping_alone_and_noise_alone_guarantee_nothing(sampling, options, why):
    mechanism = Training(**options, sampling=sampling).mechanism(60_000)
    rows = account(**mechanism, deltas=[1e-6, 1e-5])
    assert [row["delta"] for row in rows] == [1e-6, 1e-5]
    for row in rows:
        assert row["epsilon"] == math.inf and row["accountant"] == "none"
        assert row["guarantee"].startswith("none: ") and why in row["guarantee"]


def test_the_shuffle_bound_is_for_an_example_that_becomes_zero():
    """A batch of everyone in each of two epochs, gradients of norm C: one of them 0 moves the sum by C, replaced by its
    opposite by 2 C, which is the bound at half the noise multiplier."""
    sigma, clip, epochs, delta = 1.3, 2.0, 2, 1e-5
    for moved, multiplier in ((clip, sigma), (2 * clip, sigma / 2)):
        eps = shuffle_epsilon(multiplier, epochs, delta)
        mu = math.sqrt(epochs) * moved / (sigma * clip)  # of the log-likelihood ratio of the two epochs' sums
        found = stats.norm.sf(eps / mu - mu / 2) - math.exp(eps) * stats.norm.sf(eps / mu + mu / 2)
        assert found == pytest.approx(delta, rel=1e-6)


POINTS = [  # epsilon, delta, sampling, sample rate, steps, epochs
    (1.89, 1e-6, "poisson", Q, STEPS, 50),
    (1.0, 1e-5, "poisson", Q, STEPS, 50),
    (0.02, 1e-6, "poisson", Q, STEPS, 50),
    (300.0, 1e-6, "poisson", Q, 234, 1),
    (2.0, 1e-5, "poisson", 1.0, 10, 10),
    (1.0, 0.3, "poisson", 0.2, 4, 1),
    (39.9, 1e-6, "shuffle", Q, STEPS, 50),
    (1e-3, 1e-5, "shuffle", Q, STEPS, 50),
    (500.0, 1e-6, "shuffle", Q, STEPS, 3),
]


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_noise_multiplier_is_the_smallest_that_will_do(point):
    target, delta, sampling, rate, steps, epochs = point
    found = noise_multiplier(*point)

    def accounted(multiplier):
        if sampling == "shuffle":
            return shuffle_epsilon(multiplier, epochs, delta)
        return epsilon(multiplier, rate, steps, delta, "prv")

    assert accounted(found) <= target < accounted(found * (1 - 1.1e-4))
    assert float(f"{found:.6g}") == found


@pytest.mark.parametrize(("sigma", "delta", "value"), [(1.3, 1e-6, 1.89), (2.0, 1e-5, 0.93)])
def test_noise_multiplier_of_published_epsilons(sigma, delta, value):
    """They are rounded to two decimals: that is as near as the noise can come."""
    assert noise_multiplier(value, delta, "poisson", Q, STEPS, 50) == pytest.approx(sigma, rel=0.01)


def test_noise_multiplier_of_full_batches_is_the_gaussian_mechanisms():
    exact = noise_multiplier(1.5, 1e-5, "shuffle", 1.0, 40, 40)
    assert exact <= noise_multiplier(1.5, 1e-5, "poisson", 1.0, 40, 40) <= exact * 1.01


@pytest.mark.parametrize("sampling", ["poisson", "shuffle"])
def test_more_privacy_is_more_noise(sampling):
    found = [noise_multiplier(target, 1e-6, sampling, Q, 234, 1) for target in (0.1, 1.0, 10.0)]
    assert found == sorted(found, reverse=True) and len(set(found)) == 3
    assert noise_multiplier(1.0, 1e-5, sampling, Q, 234, 1) < found[1]
    assert noise_multiplier(1.0, 1e-6, sampling, Q, 468, 2) > found[1]


def test_no_steps_need_no_noise():
    assert noise_multiplier(1.0, 1e-6, "poisson", Q, 0, 0) == noise_multiplier(1.0, 1e-6, "shuffle", Q, 0, 0) == 0.0


@pytest.mark.parametrize(
    "stated", [math.nan, math.inf, -0.5, RuntimeError("Cannot compute epsilon"), ValueError("delta")]
)
def test_where_the_tight_accountant_fails_the_other_bound_holds(monkeypatch, stated):
    from opacus.accountants import PRVAccountant

    def fail(*arguments, **more):
        if isinstance(stated, Exception):
            raise stated
        return stated

    monkeypatch.setattr(PRVAccountant, "get_epsilon", fail)
    epsilon.cache_clear()
    assert epsilon(1.3, Q, STEPS, 1e-6, "prv") == epsilon(1.3, Q, STEPS, 1e-6, "rdp") == pytest.approx(2.02, abs=0.01)
    epsilon.cache_clear()


def test_few_calls_of_the_slow_accountant(monkeypatch):
    from opacus.accountants import PRVAccountant

    calls, tight = [], PRVAccountant.get_epsilon
    monkeypatch.setattr(PRVAccountant, "get_epsilon", lambda *a, **more: calls.append(a) or tight(*a, **more))
    epsilon.cache_clear()
    noise_multiplier(1.89, 1e-6, "poisson", Q, STEPS, 50)
    assert 3 <= len(calls) <= 8


@pytest.mark.parametrize(
    "point",
    [
        (0.005, 1e-6, "poisson", Q, STEPS, 50),
        (0.01, 1e-12, "poisson", Q, STEPS, 50),
        (1e-12, 1e-12, "shuffle", Q, 1, 9),
    ],
)
def test_out_of_reach(point):
    with pytest.raises(UserError, match=f"epsilon: {point[0]:g} at delta {point[1]:g} is out of reach") as caught:
        noise_multiplier(*point)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon": math.inf}, "epsilon must be positive and finite"),
        ({"epsilon": math.nan}, "epsilon must be positive"),
        ({"delta": 1.0}, "delta must be"),
        ({"sampling": "fixed"}, "sampling must be poisson or shuffle"),
        ({"sample_rate": 1.5}, "sample_rate must be"),
    ],
)
def test_bad_arguments_of_noise_multiplier(changes, message):
    valid = {"epsilon": 1.0, "delta": 1e-6, "sampling": "poisson", "sample_rate": Q, "steps": 9, "epochs": 1}
    with pytest.raises(ValueError, match=message):
        noise_multiplier(**valid | changes)
