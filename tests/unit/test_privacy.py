"""Accounting against published numbers, closed forms and the limits of the formulas."""

import math
import warnings

import pytest
from scipy import integrate, stats

from dprobust.privacy import account, epsilon, shuffle_epsilon

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


@pytest.mark.parametrize("sigma", [0.1, 0.433, 13.0, 100.0])
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
    for multiplier in (None, 0.0):
        (none,) = account("poisson", multiplier, Q, STEPS, 50, [1e-6])
        assert none["epsilon"] == math.inf and none["guarantee"].startswith("none")
