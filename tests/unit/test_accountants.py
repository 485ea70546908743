"""Accountants against numbers that others published or computed. A row: what, arguments, value, tolerance, source."""

import math

import numpy as np
import pytest
from opacus.accountants.analysis.rdp import compute_rdp
from scipy import integrate, stats

from dprobust.accounting.adjacency import REPLACE, ZERO_OUT
from dprobust.accounting.bins import bins
from dprobust.accounting.gaussian import gaussian_delta, gaussian_epsilon
from dprobust.accounting.poisson import pld
from dprobust.privacy import epsilon, shuffle_epsilon

Q, STEPS = 256 / 60_000, 11_700  # MNIST, batch 256, 50 epochs


def old_rdp(noise_multiplier, rate, steps, delta):
    """epsilon of Opacus' RDP curve by the conversion of Mironov 2017, which tools used until 2020."""
    orders = np.array([1 + x / 10 for x in range(1, 100)] + list(range(12, 257)))
    curve = np.array(compute_rdp(q=rate, noise_multiplier=noise_multiplier, steps=steps, orders=orders))
    return min(curve + math.log(1 / delta) / (orders - 1))


CALLS = {
    "rdp": lambda *a: epsilon(*a, "rdp"),
    "prv": lambda *a: epsilon(*a, "prv"),
    "pld": lambda *a: epsilon(*a, "pld"),
    "old rdp": old_rdp,
    "pld, replace": lambda *a: pld(*a, REPLACE),
    "pld, cap": lambda cap, *a: pld(*a, cap=cap, examples=60_000),
    "gaussian": gaussian_epsilon,
    "shuffle, zero out": lambda *a: shuffle_epsilon(*a, ZERO_OUT),
    "shuffle": shuffle_epsilon,
}
DP_ACCOUNTING = "dp-accounting 0.6.0 and Opacus 1.6.0, each by itself"
FOURIER = "DPBayes/PLD-Accountant, tests/test_compute_delta.py: delta at this epsilon"
TUTORIAL = "tensorflow/privacy, tutorials/README.md, MNIST"
BU = "Bu, Dong, Long, Su 2020, Fig 4"
ABADI = "Abadi et al. 2016, section 5.1 (1.26 by the moments accountant)"
OPACUS = "pytorch/opacus, opacus/tests/accountants_test.py"
BALLE = "Balle, Wang 2018: the analytic Gaussian mechanism's sigma at (1, 1e-5), as in diffprivlib's tests"


def _mnist():
    """Two decimals of each accountant; the grid of dp-accounting's own choice lets its PLD overshoot by up to 0.01."""
    for sigma, *values in (
        (0.7, 7.47, 6.77, 6.76, 6.63, 5.96, 5.95),
        (1.0, 3.12, 2.90, 2.90, 2.79, 2.56, 2.56),
        (1.3, 2.02, 1.89, 1.88, 1.80, 1.66, 1.65),
        (1.5, 1.65, 1.54, 1.53, 1.47, 1.35, 1.35),
        (2.0, 1.14, 1.06, 1.06, 1.01, 0.93, 0.93),
    ):
        for i, value in enumerate(values):
            delta, kind = (1e-6, 1e-5)[i // 3], ("rdp", "prv", "pld")[i % 3]
            tolerance = {"rdp": 0.006, "prv": 0.006, "pld": 0.013}[kind]
            yield kind, (sigma, Q, STEPS, delta), value, tolerance, DP_ACCOUNTING
    for clip, by_rdp, by_pld in (
        (0.25, 0.38, None),
        (0.5, 0.83, 0.77),
        (0.7, 1.25, 1.16),
        (0.8, 1.48, 1.38),
        (1.2, 2.70, 2.51),
        (1.5, 4.21, 3.88),
        (2.0, 9.43, 8.52),
        (3.0, 41.2, 37.6),
        (5.0, 299.0, 269.6),
    ):
        yield "rdp", (1.3 / clip, Q, STEPS, 1e-6), by_rdp, max(0.006, 0.002 * by_rdp), DP_ACCOUNTING
        if by_pld:
            yield "pld", (1.3 / clip, Q, STEPS, 1e-6), by_pld, max(0.015, 0.001 * by_pld), DP_ACCOUNTING


TABLE = [
    *_mnist(),
    # CIFAR-10, batch 200, 200 epochs
    ("rdp", (1.0, 200 / 50_000, 50_000, 1e-6), 6.38, 0.006, DP_ACCOUNTING),
    ("rdp", (1.0, 200 / 50_000, 50_000, 1e-5), 5.78, 0.006, DP_ACCOUNTING),
    ("prv", (1.0, 200 / 50_000, 50_000, 1e-6), 5.97, 0.006, DP_ACCOUNTING),
    ("pld", (1.0, 200 / 50_000, 50_000, 1e-5), 5.35, 0.006, DP_ACCOUNTING),
    # the RDP curve under the conversion of their time
    ("old rdp", (1.12, Q, 60 * 60_000 // 256, 1e-5), 2.92, 0.006, TUTORIAL),
    ("old rdp", (0.6, Q, 30 * 60_000 // 256, 1e-5), 9.74, 0.02, TUTORIAL),
    ("old rdp", (1.2, Q, 10 * 60_000 // 256, 1e-5), 1.20, 0.006, TUTORIAL),
    ("old rdp", (1.3, Q, 20 * 60_000 // 256, 1e-5), 1.34, 0.012, BU),
    ("old rdp", (0.7, Q, 70 * 60_000 // 256, 1e-5), 8.68, 0.006, BU),
    ("old rdp", (4.0, 0.01, 10_000, 1e-5), 1.26, 0.006, ABADI),
    ("rdp", (1.5, 0.04, 2_250, 1e-5), 7.32911117143, 1e-6, OPACUS),
    # an implementation of its own, by the Fourier accountant: (epsilon, sigma, q, steps) -> delta
    ("pld", (2.0, 0.01, 10_000, 0.010224911209), 1.0, 1e-3, FOURIER),
    ("pld", (2.0, 0.01, 100_000, 0.392057288533), 1.0, 1e-3, FOURIER),
    ("pld", (2.0, 0.01, 10_000, 0.022850339596), 0.8, 1e-3, FOURIER),
    ("pld", (1.0, 0.01, 10_000, 0.239176394736), 1.0, 1e-3, FOURIER),
    ("pld", (2.0, 0.02, 10_000, 0.149917329693), 1.0, 1e-3, FOURIER),
    ("prv", (2.0, 0.01, 10_000, 0.010224911209), 1.005, 0.0055, FOURIER),
    ("pld, replace", (2.0, 0.01, 10_000, 0.128209385711), 1.0, 1e-3, FOURIER),
    ("pld, replace", (2.0, 0.01, 100_000, 0.820553801441), 1.0, 5e-3, FOURIER),
    ("pld, replace", (2.0, 0.01, 10_000, 0.168032073536), 0.8, 1e-3, FOURIER),
    ("pld, replace", (1.0, 0.01, 10_000, 0.556809673152), 1.0, 1e-3, FOURIER),
    ("pld, replace", (2.0, 0.02, 10_000, 0.511311882151), 1.0, 1e-3, FOURIER),
    ("pld, replace", (1.3, Q, STEPS, 1e-6), 3.42, 0.012, DP_ACCOUNTING),
    ("pld, replace", (1.3, Q, STEPS, 1e-5), 3.06, 0.012, DP_ACCOUNTING),
    # a cap on the batch: above 330 it costs nothing
    ("pld, cap", (300, 1.3, Q, STEPS, 1e-6), 2.56, 0.006, DP_ACCOUNTING),
    ("pld, cap", (330, 1.3, Q, STEPS, 1e-6), 1.88, 0.012, DP_ACCOUNTING),
    ("pld, cap", (512, 1.3, Q, STEPS, 1e-6), 1.88, 0.012, DP_ACCOUNTING),
    # closed forms
    ("gaussian", (1 / 3.730631634816464, 1e-5), 1.0, 1e-6, BALLE),
    (
        "pld",
        (100.0, 1.0, 10_000, gaussian_delta(1.0, 4.0)),
        4.0,
        1e-3,
        "mu = 1, as in microsoft/prv_accountant's tests",
    ),
    ("prv", (100.0, 1.0, 10_000, gaussian_delta(1.0, 4.0)), 4.005, 0.0055, "the same"),
    *(
        ("shuffle, zero out", (sigma, 50, delta), value, 0.06, "mu = sqrt(E) / sigma: science of the sampler's bound")
        for sigma, delta, value in (
            (0.7, 1e-6, 98.2),
            (1.0, 1e-6, 57.9),
            (1.3, 1e-6, 39.9),
            (1.5, 1e-6, 32.8),
            (2.0, 1e-6, 22.4),
            (1.3, 1e-5, 37.3),
        )
    ),
    ("shuffle, zero out", (1.3, 1, 1e-6), 3.63, 0.006, "the same"),
    ("shuffle", (1.3, 50, 1e-6), 110.0, 0.6, "mu = 2 sqrt(E) / sigma"),
    ("shuffle", (2.6, 50, 1e-6), 39.9, 0.06, "half the noise for twice the change"),
]


def test_there_are_enough_rows():
    assert len(TABLE) >= 40 and len({row[:2] for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("kind", "arguments", "value", "tolerance", "source"), TABLE, ids=lambda x: str(x)[:40])
def test_published_values(kind, arguments, value, tolerance, source):
    assert CALLS[kind](*arguments) == pytest.approx(value, abs=tolerance), source


INTERVALS = [  # sigma, bins, epochs, delta, lower and upper bound by PLD_accounting 2.0 (tests/oracles.py)
    (1.3, 234, 1, 1e-6, 0.23307, 0.24149),
    (0.7, 234, 1, 1e-6, 2.04719, 2.06645),
    (2.0, 100, 1, 1e-5, 0.16930, 0.17795),
    (1.0, 10, 1, 1e-5, 2.18586, 2.19605),
    (1.0, 10, 5, 1e-5, 4.26979, 4.30192),
    (1.3, 234, 10, 1e-6, 0.75957, 0.79896),
    (0.5, 50, 2, 1e-5, 7.77190, 7.82384),
    (5.0, 20, 3, 1e-5, 0.25682, 0.26575),
]


@pytest.mark.parametrize("row", INTERVALS, ids=str)
def test_balls_in_bins_lies_between_the_bounds_of_another_accountant(row):
    """Feldman, Shenfeld 2026 (arXiv 2602.17284) by geometric convolution, a method of its own."""
    *arguments, lower, upper = row
    assert lower <= bins(*arguments) <= upper


def exact_bins(sigma, steps, value, n=100_000):
    """delta of one epoch at epsilon `value` in both directions, by Monte Carlo: mean and standard error each."""
    z = np.random.default_rng(7).standard_normal((n, steps))
    found = []
    for present in (True, False):
        logs = z / sigma - 0.5 / sigma**2
        logs[:, 0] += present / sigma**2
        loss = np.logaddexp.reduce(logs, axis=1) - math.log(steps)
        excess = np.maximum(0, -np.expm1(value - (loss if present else -loss)))
        found.append((excess.mean(), excess.std() / math.sqrt(n)))
    return found


@pytest.mark.parametrize(
    ("sigma", "steps", "delta"), [(1.3, 10, 0.01), (0.7, 4, 0.01), (3.0, 2, 0.01), (20.0, 30, 0.002)]
)
def test_balls_in_bins_is_the_hockey_stick_divergence_of_the_pair(sigma, steps, delta):
    """The larger one of both directions, by sampling from P and Q themselves."""
    (removed, error), (added, _) = exact_bins(sigma, steps, bins(sigma, steps, 1, delta))
    assert max(removed, added) == pytest.approx(delta, abs=5 * error)


def test_two_bins_by_quadrature():
    """Two bins, one epoch: delta at the bound by integration over the plane, to six digits."""
    sigma, delta = 1.0, 1e-3
    value = bins(sigma, 2, 1, delta)

    def inner(x):  # P / Q = (exp(x - 1/2) + exp(y - 1/2)) / 2, above exp(value) from y on
        rest = 2 * math.exp(value) - math.exp(x - 0.5)
        y = 0.5 + math.log(rest) if rest > 0 else -math.inf
        ours = 0.5 * (stats.norm.pdf(x, 1) * stats.norm.sf(y) + stats.norm.pdf(x) * stats.norm.sf(y, 1))
        return ours - math.exp(value) * stats.norm.pdf(x) * stats.norm.sf(y)

    edge = 0.5 + math.log(2 * math.exp(value))
    parts = [integrate.quad(inner, a, b, epsabs=1e-12)[0] for a, b in ((-9, 0), (0, edge), (edge, 10))]
    assert sum(parts) == pytest.approx(delta, rel=1e-4)
    assert sum(parts) <= delta * (1 + 1e-8)


@pytest.mark.parametrize(("sigma", "steps", "epochs"), [(1.3, 234, 50), (2.0, 20, 3), (20.0, 234, 50), (1000.0, 50, 2)])
def test_balls_in_bins_is_no_worse_than_poisson(sigma, steps, epochs):
    """In the regimes of Chua et al. 2024 and Feldman, Shenfeld 2026; nearly the same where the noise is large."""
    found, poisson = bins(sigma, steps, epochs, 1e-6), epsilon(sigma, 1 / steps, steps * epochs, 1e-6)
    assert 0.85 * poisson < found < poisson if sigma < 10 else found == pytest.approx(poisson, rel=2e-3)


def test_balls_in_bins_at_its_ends():
    """One bin is the Gaussian mechanism; where no grid will do (little noise, tiny delta) its bound is what is left."""
    for sigma, steps, epochs, delta in ((1.3, 1, 9, 1e-5), (0.2, 234, 50, 1e-6), (1.3, 234, 50, 1e-13)):
        assert bins(sigma, steps, epochs, delta) == gaussian_epsilon(math.sqrt(epochs) / sigma, delta)
    found = [bins(1.3, 50, 3, delta) for delta in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)]
    assert found == sorted(found) and found[-1] < gaussian_epsilon(math.sqrt(3) / 1.3, 1e-10)


@pytest.mark.parametrize(
    "arguments",
    [
        (1.3, Q, STEPS, 1e-6),
        (0.7, Q, STEPS, 1e-5),
        (2.0, 0.01, 1_000, 1e-5),
        (1.0, 0.1, 100, 1e-5),
        (5.0, 1.0, 40, 1e-5),
    ],
    ids=str,
)
def test_accountants_agree(arguments):
    """PRV is told as the upper end of an interval of 0.01, PLD has a fine grid; RDP is up to a fifth looser."""
    rdp, prv, tight = (epsilon(*arguments, accountant) for accountant in ("rdp", "prv", "pld"))
    assert tight - 1e-3 <= prv <= tight + 0.0105
    assert tight < rdp < 1.2 * tight


def test_pld_of_full_batches_is_exact_and_never_below():
    for sigma, steps, delta in ((5.0, 40, 1e-5), (1.0, 1, 1e-6), (50.0, 1, 1e-9)):
        exact = gaussian_epsilon(math.sqrt(steps) / sigma, delta)
        assert exact - 1e-9 <= epsilon(sigma, 1.0, steps, delta, "pld") <= exact * (1 + 1e-4)
        replaced = gaussian_epsilon(2 * math.sqrt(steps) / sigma, delta)
        assert replaced - 1e-9 <= pld(sigma, 1.0, steps, delta, REPLACE) <= replaced * (1 + 1e-4)


def test_a_cap_costs_what_it_is_reached():
    """Always reached, one example displaces another; never reached, it is Poisson sampling."""
    free = epsilon(1.3, 0.1, 100, 1e-5)
    found = [pld(1.3, 0.1, 100, 1e-5, cap=cap, examples=1000) for cap in (100, 120, 150, 1000)]
    assert found == sorted(found, reverse=True) and found[0] > 1.5 * free
    assert found[-1] == pytest.approx(free, rel=1e-3)
    everyone = pld(1.3, 1.0, 100, 1e-5, cap=10, examples=10)
    assert everyone == pytest.approx(gaussian_epsilon(math.sqrt(100) / 1.3, 1e-5), rel=1e-4)
