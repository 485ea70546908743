"""The noise of DP-SGD: its law far into the tail, and what a running training adds, against planted faults."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from dprobust import seeds, training
from dprobust.arrays import Split
from dprobust.noise import GRID, Noise, divisor, residuals
from dprobust.recipe import Training

RARE = 1e-7
"""p-values below this are faults: secret noise is other in each run of the tests."""


def noise(std=1.0, secret=False, device="cpu", name="law"):
    return Noise(std, (name,), secret, device)


class Fed(np.random.Generator):
    """NumPy's sampler, with the bits and uniforms given."""

    def __new__(cls, bits, uniforms):
        wrapper = pytest.importorskip("randomgen.wrapper")
        source = wrapper.UserBitGenerator(lambda _: next(bits), 64, next_double=lambda _: next(uniforms))
        return np.random.Generator(source)


TAIL = 0xFFFFFFFFF0000 << 9
"""Bits that lead the ziggurat into its tail; 16 bits, of which one is the sign, are free."""


@pytest.mark.parametrize(("bits", "reached"), [(23, 8.0), (45, 12.1)])
def test_extreme_uniforms_reach_far_into_the_tail(monkeypatch, bits, reached):
    """Marsaglia's tail: r + x, x exponential of rate r, kept if a second exponential is above x^2 / 2."""
    rate = 3.6541528853610088
    uniforms = [1 - 2.0**-bits, 1 - 2.0**-53]
    fed = Fed(itertools.repeat(TAIL), iter(uniforms))
    monkeypatch.setattr(seeds, "normal_generator", lambda *_: fed)
    (found,) = noise().draw(0, 1).tolist()
    assert abs(found) == pytest.approx(rate + bits * math.log(2) / rate, rel=1e-12) and abs(found) > reached


def test_the_tail_has_the_normal_law(monkeypatch):
    """All draws beyond 3.65: against the law of a normal number given that it is there."""
    random, n = np.random.default_rng(0), 100_000
    bits = (TAIL | int(low) << 9 for low in random.integers(0, 2**16, n))
    fed = Fed(bits, iter(random.random(5 * n).tolist()))
    monkeypatch.setattr(seeds, "normal_generator", lambda *_: fed)
    found = noise().draw(0, n).numpy()
    edge = 3.6541528853610088
    given = stats.norm.sf(np.abs(found)) / stats.norm.sf(edge)
    assert np.abs(found).min() >= edge and stats.kstest(given, "uniform").pvalue > 1e-3
    assert stats.binomtest(int((found > 0).sum()), n).pvalue > 1e-3
    for t in (4.5, 5.0, 5.5, 6.0):
        expected = stats.norm.sf(t) / stats.norm.sf(edge)
        assert stats.binomtest(int((np.abs(found) > t).sum()), n, expected).pvalue > 1e-3, t


def counted(n, chunk=4_000_000, at=(3.0, 4.0, 5.0, 5.5, 5.7682, 6.0, 7.0), **how):
    """Numbers beyond each of `at`, on either side, and the first four moments."""
    source, beyond, moments = noise(**how), np.zeros(len(at), int), np.zeros(4)
    for step in range(n // chunk):
        drawn = source.draw(step, chunk)
        far = drawn[drawn.abs() > at[0]].abs()
        beyond += [(far > t).sum().item() for t in at]
        square = drawn.square()
        moments += [v.sum().item() for v in (drawn, square, drawn * square, square.square())]
    return dict(zip(at, beyond.tolist(), strict=True)), moments / n


def check(n, beyond, moments):
    for t, found in beyond.items():
        assert stats.binomtest(found, n, 2 * stats.norm.sf(t)).pvalue > RARE, (t, found)
    # Moments of a normal number, each with its own standard deviation.
    for found, expected, variance in zip(moments, (0, 1, 0, 3), (1, 2, 15, 96), strict=True):
        assert abs(found - expected) < 5.5 * math.sqrt(variance / n)


@pytest.mark.parametrize("secret", [False, True])
def test_the_law_is_normal(secret):
    check(80_000_000, *counted(80_000_000, secret=secret))


@pytest.mark.slow
def test_the_law_is_normal_beyond_the_end_of_float32():
    """Float32 noise ends at 5.7681, where 2 * 10^9 draws are expected to have 16 more."""
    n = 2_000_000_000
    beyond, moments = counted(n)
    check(n, beyond, moments)
    assert beyond[5.7682] >= 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_the_law_is_normal_on_cuda():
    n = 4_000_000_000
    beyond, moments = counted(n, chunk=40_000_000, device="cuda")
    check(n, beyond, moments)
    assert beyond[5.7682] >= 8 and noise(device="cuda").draw(0, 3).device.type == "cuda"
    assert noise(device="cuda", secret=True).draw(0, 3).device.type == "cuda"


def test_each_step_has_a_stream_of_its_own():
    source = noise()
    first, second = (source.draw(step, 10_000).clone() for step in (0, 1))
    assert torch.equal(first, noise().draw(0, 10_000)) and torch.equal(second, noise().draw(1, 10_000))
    other = noise(name="other").draw(0, 10_000)
    for one, two in ((first, second), (first, other), (first[1:], first[:-1])):
        assert abs(stats.pearsonr(one, two).statistic) < 0.05
    assert torch.equal(first[:100], noise().draw(0, 100))  # of fewer parameters, too


def test_secret_noise_is_never_the_same():
    source = noise(secret=True)
    drawn = [source.draw(0, 1000).clone() for _ in range(3)] + [noise(secret=True).draw(0, 1000)]
    for one, two in itertools.combinations(drawn, 2):
        assert len(np.intersect1d(one, two)) == 0


@pytest.mark.parametrize("std", [0.7, 1.0, 1e-8, 3e4])
def test_noisy_sums_lie_on_a_grid_that_they_do_not_choose(std):
    sums = {"a": torch.randn(50, 40), "b": torch.zeros(3), "c": torch.randn(4, 5, dtype=torch.float64)}
    sums = {name: value * std for name, value in sums.items()}
    given = {name: value.clone() for name, value in sums.items()}
    source = noise(std)
    noisy, drawn = source.add(7, sums), noise().draw(7, 2023).numpy()
    spacing = GRID * 2.0 ** math.floor(math.log2(std))
    assert GRID / 2 < spacing / std <= GRID
    flat = np.concatenate([noisy[name].double().numpy().ravel() for name in sums])
    assert np.all(flat % spacing == 0)
    expected = np.concatenate([given[name].double().numpy().ravel() for name in sums]) + std * drawn
    np.testing.assert_allclose(flat, expected, rtol=2.0**-23, atol=spacing * 0.501)
    for name, value in sums.items():
        assert torch.equal(value, given[name]) and noisy[name].shape == value.shape
        assert noisy[name].dtype == value.dtype and noisy[name].is_contiguous()
    kept = {name: value.clone() for name, value in noisy.items()}
    source.add(8, sums)
    assert all(torch.equal(noisy[name], kept[name]) for name in sums)


def test_sums_in_another_order_of_memory():
    value = torch.randn(6, 5, 4, 3).to(memory_format=torch.channels_last)
    noisy = noise().add(0, {"a": value})["a"]
    torch.testing.assert_close(noisy, (value + noise().draw(0, 360).view(6, 5, 4, 3)).float(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan])
def test_a_standard_deviation_is_positive(std):
    with pytest.raises(ValueError, match="std must be positive"):
        noise(std)


# What a running training adds.

SETTINGS = {"epochs": 10, "batch_size": 8, "lr": 0.3, "clip": 0.5, "sigma": 1.3, "sampling": "poisson"}


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 12), nn.ReLU(), nn.Linear(12, 5)
        )


def observed(**changes):
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (48, 1, 6, 6), np.uint8), rng.integers(0, 5, 48))
    found, s = [], Training(**SETTINGS | changes)
    training.train(net(), split, split, s, ("watched",), watch=found.append)
    assert [each.step for each in found] == list(range(s.epochs * 6))
    return found, s


def faults(steps, s):
    """What is wrong with the noise of a training, as it was watched."""
    found = [residuals(step, s.noise_std) for step in steps]
    pooled = {name: np.stack([each[name] for each in found]) for name in found[0]}
    wrong = set()
    for name, values in pooled.items():
        n, flat = values.size, values.ravel()
        spread = stats.chi2.cdf(flat.var() * n, n - 1)
        mean = 2 * stats.norm.sf(abs(flat.mean()) * math.sqrt(n))
        if min(spread, 1 - spread, mean / 2, stats.kstest(flat, "norm").pvalue) < RARE / 2:
            wrong.add(f"law of {name}")
    whole = np.concatenate(list(pooled.values()), axis=1)
    pairs = [*itertools.combinations(whole, 2)]
    for one, two in itertools.combinations(pooled.values(), 2):
        shared = min(one.shape[1], two.shape[1])
        pairs.append((one[:, :shared].ravel(), two[:, :shared].ravel()))
    pairs = [pair for pair in pairs if all(values.any() for values in pair)]
    if any(abs(np.arctanh(np.corrcoef(*p)[0, 1])) * math.sqrt(len(p[0]) - 3) > 6.5 for p in pairs):
        wrong.add("drawn twice")
    if any(abs(divisor(step, s.lr) / s.batch_size - 1) > 1e-4 for step in steps):
        wrong.add("divisor")
    return wrong


@pytest.mark.parametrize("randomness", ["reproducible", "secret"])
@pytest.mark.parametrize("changes", [{}, {"noise": "sigma", "sampling": "shuffle"}], ids=["poisson", "shuffle"])
def test_a_training_adds_the_noise_that_it_states(randomness, changes):
    assert faults(*observed(randomness=randomness, **changes)) == set()


def test_noise_alone_is_as_stated():
    assert faults(*observed(clip=None, noise="sigma")) == set()


def test_what_is_watched_is_the_step_of_algorithm_1():
    """Sums are those of the batch, by autograd; and the last step leads to the parameters that the training left."""
    steps, s = observed(clip=1e9, noise="sigma", sampling="shuffle", epochs=1)
    model = net()
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 1, 6, 6), np.uint8), rng.integers(0, 5, 48)
    order = training.batches(48, s, seeds.generator("watched", "sampling"))
    for step, batch in zip(steps, order, strict=True):
        x, y = torch.from_numpy(images)[batch] / 255, torch.from_numpy(labels)[batch]
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), list(model.parameters()))
        for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
            torch.testing.assert_close(step.sums[name], g, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(step.moved[name], s.lr / 8 * step.noisy[name], rtol=1e-4, atol=1e-6)
            p.data -= step.moved[name]


def changed(monkeypatch, change):
    """Noise whose numbers are those that `change` makes of them."""
    sampler = Noise.sampler

    def other(self, step):
        numbers = sampler(self, step)
        return lambda n: change(numbers(n))

    monkeypatch.setattr(Noise, "sampler", other)


def half(monkeypatch):
    changed(monkeypatch, lambda numbers: numbers * 0.5)


def one_without(monkeypatch):
    def add(self, step, sums, add=Noise.add):
        return add(self, step, sums) | {"3.bias": sums["3.bias"].clone()}

    monkeypatch.setattr(Noise, "add", add)


def twice_in_two_steps(monkeypatch):
    monkeypatch.setattr(Noise, "sampler", lambda self, step, own=Noise.sampler: own(self, 3 * (step // 2)))


def twice_in_two_parameters(monkeypatch):
    def add(self, step, sums, add=Noise.add):
        return {name: add(self, step, {name: value})[name] for name, value in sums.items()}

    monkeypatch.setattr(Noise, "add", add)


def batch_drawn(monkeypatch):
    sizes, update, batches = [], training._update, training.batches

    def drawn(*arguments):
        for batch in batches(*arguments):
            sizes.append(len(batch))
            yield batch

    def divided(parameters, sums, velocities, settings, lr):
        update(parameters, sums, velocities, settings.model_copy(update={"batch_size": max(1, sizes[-1])}), lr)

    monkeypatch.setattr(training, "batches", drawn)
    monkeypatch.setattr(training, "_update", divided)


def uniform(monkeypatch):
    random = torch.Generator().manual_seed(0)
    changed(
        monkeypatch, lambda numbers: (torch.rand(len(numbers), dtype=torch.float64, generator=random) - 0.5) * 12**0.5
    )


def shifted(monkeypatch):
    changed(monkeypatch, lambda numbers: numbers + 0.2)


@pytest.mark.parametrize(
    ("plant", "caught"),
    [
        (half, {"law of 0.weight", "law of 3.weight", "law of 5.bias"}),
        (one_without, {"law of 3.bias"}),
        (twice_in_two_steps, {"drawn twice"}),
        (twice_in_two_parameters, {"drawn twice"}),
        (batch_drawn, {"divisor"}),
        (uniform, {"law of 3.weight"}),
        (shifted, {"law of 3.weight"}),
    ],
)
def test_planted_faults_are_caught(monkeypatch, plant, caught):
    plant(monkeypatch)
    found = faults(*observed())
    assert caught <= found
    assert found == caught or plant in (half, uniform, shifted)
