"""Samplers: the law of the batches that each one draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from dprobust.arrays import Split
from dprobust.recipe import Training
from dprobust.samplers import SAMPLERS, batches
from dprobust.training import train


def drawn(n, epochs, seed=0, **settings):
    """Epochs of batches."""
    settings, random = Training(**{"batch_size": 8} | settings), torch.Generator().manual_seed(seed)
    return [list(batches(n, settings, random)) for _ in range(epochs)]


def fits(observed, expected):
    """Whether counts follow a law; rare outcomes are counted together."""
    common = expected > 5
    pairs = (np.append(part[common], part[~common].sum()) for part in (observed, expected))
    observed, expected = (part[[*range(len(part) - 1), *([-1] if rest else [])]] for part, rest in _with(pairs))
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def _with(pairs):
    observed, expected = pairs
    rest = expected[-1] > 1
    return (observed, rest), (expected, rest)


def old_batches(n, settings, random):
    """What trainings drew before there were other samplers."""
    steps, b = settings.steps_per_epoch(n), settings.batch_size
    if settings.sampling == "shuffle":
        return list(torch.randperm(n, generator=random)[: steps * b].view(steps, b))
    return [(torch.rand(n, generator=random, dtype=torch.float64) < b / n).nonzero().squeeze(1) for _ in range(steps)]


@pytest.mark.parametrize("sampling", ["poisson", "shuffle"])
def test_the_same_draws_as_ever(sampling):
    settings = Training(batch_size=7, sampling=sampling)
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    for _ in range(3):
        found, expected = list(batches(40, settings, ours)), old_batches(40, settings, theirs)
        assert len(found) == len(expected) == 5
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_what_all_have_in_common(sampling):
    """As many batches as stated, indices without repetition, the same from the same generator, others from another."""
    (first,), (again,), (other,) = (drawn(45, 1, seed, sampling=sampling) for seed in (1, 1, 2))
    assert len(first) == Training(batch_size=8).steps_per_epoch(45) == 5
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    for batch in first:
        assert batch.dtype == torch.int64 and len(batch.unique()) == len(batch)
        assert ((batch >= 0) & (batch < 45)).all()
    second = drawn(45, 2, 1, sampling=sampling)[1]
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_poisson():
    """Sizes are binomial, every example is as likely, and two examples come independently."""
    n, epochs = 40, 1000
    found = [batch for epoch in drawn(n, epochs, sampling="poisson") for batch in epoch]
    sizes = np.bincount([len(batch) for batch in found], minlength=n + 1)
    assert fits(sizes, len(found) * stats.binom.pmf(np.arange(n + 1), n, 0.2))
    each = np.bincount(torch.cat(found), minlength=n) / len(found)
    assert abs(each - 0.2).max() < 5 * math.sqrt(0.2 * 0.8 / len(found))
    both = np.mean([bool((batch < 2).sum() == 2) for batch in found])
    assert abs(both - 0.04) < 5 * math.sqrt(0.04 / len(found))


@pytest.mark.parametrize("cap", [8, 10, 39])
def test_truncated_poisson(cap):
    """Sizes are binomial up to the cap, which is never exceeded; an example is in a batch with the probability that
    dp-accounting's bound is for."""
    n, q = 40, 0.2
    found = [batch for epoch in drawn(n, 1000, sampling="truncated_poisson", batch_cap=cap) for batch in epoch]
    law = stats.binom.pmf(np.arange(cap + 1), n, q)
    law[cap] += stats.binom.sf(cap, n, q)
    sizes = np.bincount([len(batch) for batch in found])
    assert len(sizes) <= cap + 1
    assert fits(np.pad(sizes, (0, cap + 1 - len(sizes))), len(found) * law)
    included = q * stats.binom.cdf(cap - 1, n - 1, q) + stats.binom.sf(cap, n, q) * cap / n
    each = np.bincount(torch.cat(found), minlength=n) / len(found)
    assert abs(each - included).max() < 5 * math.sqrt(included * (1 - included) / len(found))


def test_a_cap_takes_a_part_of_a_poisson_batch():
    """The first batch is Poisson's, and only where there are too many of it is it thinned, each as likely to stay."""
    kept = np.zeros(40)
    for seed in range(400):
        poisson, capped = (drawn(40, 1, seed, sampling=s, batch_cap=9)[0][0] for s in ("poisson", "truncated_poisson"))
        assert set(capped.tolist()) <= set(poisson.tolist()) and len(capped) == min(len(poisson), 9)
        if len(poisson) > 9:
            kept[np.searchsorted(poisson.numpy(), capped.numpy()) * 40 // len(poisson)] += 1
    thirds = kept.reshape(4, 10).sum(1)
    assert stats.chisquare(thirds).pvalue > 1e-3


def test_the_cap_by_default_is_hardly_ever_reached():
    assert Training(batch_size=256).cap == 352 and Training(batch_size=256, batch_cap=300).cap == 300
    for b, n in ((256, 60_000), (32, 2_000), (2_000, 50_000)):
        assert stats.binom.sf(Training(batch_size=b).cap, n, b / n) < 2e-7


def test_balls_in_bins():
    """Each example once an epoch; its batch is uniform, and two examples share one with probability 1 / t."""
    n, t, epochs = 43, 5, 2000
    found = drawn(n, epochs, sampling="balls_in_bins")
    where = np.zeros((epochs, n), int)
    for e, epoch in enumerate(found):
        assert torch.equal(torch.cat(epoch).sort().values, torch.arange(n)) and len(epoch) == t
        for k, batch in enumerate(epoch):
            where[e, batch.numpy()] = k
    for i in (0, 17, n - 1):
        assert stats.chisquare(np.bincount(where[:, i], minlength=t)).pvalue > 1e-3
        assert stats.chisquare(np.bincount(where[1:, i] * t + where[:-1, i], minlength=t * t)).pvalue > 1e-3
    same = (where[:, 3] == where[:, 4]).mean()
    assert abs(same - 1 / t) < 5 * math.sqrt(0.2 * 0.8 / epochs)
    sizes = np.bincount([len(epoch[2]) for epoch in found], minlength=n + 1)
    assert fits(sizes, epochs * stats.binom.pmf(np.arange(n + 1), n, 1 / t))


def test_shuffled():
    """Batches of exactly b, none twice; who is left out is drawn anew each epoch, each as likely."""
    n, epochs = 43, 2000
    left = np.zeros(n)
    for epoch in drawn(n, epochs, sampling="shuffle"):
        seen = torch.cat(epoch)
        assert {len(batch) for batch in epoch} == {8} and len(seen.unique()) == 40
        left[np.setdiff1d(np.arange(n), seen.numpy())] += 1
    assert stats.chisquare(left).pvalue > 1e-3


def test_what_accounting_is_told():
    """The rate at which an example really comes, and what a cap depends on."""
    told = {sampling: Training(batch_size=8, epochs=3, sampling=sampling).mechanism(43) for sampling in SAMPLERS}
    assert {sampling: m["sampling"] for sampling, m in told.items()} == {sampling: sampling for sampling in SAMPLERS}
    assert all(m["steps"] == 15 and m["epochs"] == 3 for m in told.values())
    assert told["poisson"]["sample_rate"] == told["truncated_poisson"]["sample_rate"] == 8 / 43
    assert told["balls_in_bins"]["sample_rate"] == 1 / 5
    assert told["truncated_poisson"]["batch_cap"] == 25 and told["truncated_poisson"]["examples"] == 43
    assert "batch_cap" not in told["poisson"]


def test_a_cap_below_the_batch_size_is_refused():
    with pytest.raises(ValueError, match="batch_cap: 7 is less than batch_size 8; use a larger cap"):
        Training(batch_size=8, batch_cap=7)


@pytest.mark.parametrize("sampling", SAMPLERS)
@pytest.mark.parametrize("private", [True, False])
def test_training_takes_any_of_them(sampling, private):
    """At b = 1 batches differ in size and some are empty."""
    rng = np.random.default_rng(0)
    data = Split(rng.integers(0, 256, (20, 1, 4, 4), np.uint8), rng.integers(0, 3, 20))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    more = {"clip": 1.0, "sigma": 0.5} if private else {}
    history = train(model, data, data, Training(epochs=2, batch_size=1, lr=0.01, sampling=sampling, **more), (0, "run"))
    assert len(history) == 2 and all(torch.isfinite(p).all() for p in model.parameters())
