import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from dprobust import checkpoints, training
from dprobust.datasets import Split
from dprobust.errors import UserError
from dprobust.models import unit
from dprobust.privacy import epsilon, shuffle_epsilon
from dprobust.recipe import Stop, Training
from dprobust.seeds import generator
from dprobust.training import batches, hold_out, resolve, train


def net(seed=0, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        return nn.Sequential(*features, nn.Dropout(dropout), nn.Linear(27, 5))


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (n, 1, 8, 8), np.uint8), rng.integers(0, 5, n))


def settings(**changes):
    """`noise_std` stands for the rule "sigma"."""
    if "noise_std" in changes:
        changes |= {"sigma": changes.pop("noise_std"), "noise": "sigma"}
    return Training(**({"epochs": 2, "batch_size": 8, "lr": 0.5} | changes))


def trained(s, n=40, model=None, **more):
    model = model or net()
    history = train(model, data(n), data(16, 1), s, ("seed", "run"), **more)
    return dict(model.named_parameters()), history


def per_example(model, x, y):
    rows = []
    for xi, yi in zip(x, y, strict=True):
        grads = torch.autograd.grad(F.cross_entropy(model(xi[None]), yi[None]), list(model.parameters()))
        rows.append([g.detach().double() for g in grads])
    return rows


def reference(model, s, n, noise):
    """Algorithm 1 written out in float64, with the batches of the real sampler and the noise handed in."""
    split, random = data(n), generator("seed", "run", "sampling")
    for _ in range(s.epochs):
        for batch in batches(n, s, random):
            x, y = unit(torch.from_numpy(split.images[batch])), torch.from_numpy(split.labels[batch])
            total = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
            for grads in per_example(model, x, y):
                norm = math.sqrt(sum(g.square().sum().item() for g in grads))
                for t, g in zip(total, grads, strict=True):
                    t += g / max(1.0, norm / s.clip)
            with torch.no_grad():
                for p, t in zip(model.parameters(), total, strict=True):
                    drawn = torch.empty_like(p).normal_(0, s.noise_std, generator=noise)
                    p -= s.lr * ((t + drawn) / s.batch_size).float()
    return dict(model.named_parameters())


@pytest.mark.parametrize(("sampling", "clip"), [("poisson", 2.2), ("shuffle", 1.2)])
def test_dpsgd_is_algorithm_1(sampling, clip):
    s = settings(clip=clip, noise_std=0.2, sampling=sampling, engine="functional")
    expected = reference(net(), s, 40, generator("seed", "run", "noise"))
    found, history = trained(s)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert 0 < history[0]["clipped"] < 1


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}]
)
def test_sgd_is_torchs(options):
    s = settings(**options, lr=0.1)
    model, split = net(), data(40)
    optimizer = torch.optim.SGD(model.parameters(), lr=s.lr, **options)
    random = generator("seed", "run", "sampling")
    for _ in range(s.epochs):
        for batch in batches(40, s, random):
            x, y = unit(torch.from_numpy(split.images[batch])), torch.from_numpy(split.labels[batch])
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    found, history = trained(s)
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert set(history[0]) == {"epoch", "test_accuracy", "test_loss"}


def test_weight_decay_is_the_same_for_dpsgd():
    sgd, _ = trained(settings(weight_decay=0.1))
    dp, _ = trained(settings(weight_decay=0.1, clip=1e9, noise_std=0.0))
    for name, value in sgd.items():
        torch.testing.assert_close(dp[name], value, rtol=1e-5, atol=1e-6)


def test_one_cycle_rises_for_a_fifth_of_the_steps_and_falls_to_0():
    s = settings(lr=2.0, schedule="one_cycle")
    rates = [s.lr_at(step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(2.0, rel=1e-4) and 199 <= rates.index(max(rates)) <= 200
    assert rates[100] == pytest.approx(1.005) and rates[600] == pytest.approx(1.0, abs=2e-3)
    assert 0 < rates[0] < 0.01 and 0 < rates[-1] < 1e-5
    assert np.all(np.diff(rates[:200]) > 0) and np.all(np.diff(rates[200:]) < 0)
    assert {settings(lr=2.0).lr_at(step, 10) for step in range(10)} == {2.0}


def test_a_step_has_the_schedules_rate():
    """One epoch of five steps from the same gradient: with lr 0 there would be none."""
    model, split = net(), data(40)
    s = settings(epochs=1, schedule="one_cycle")
    optimizer = torch.optim.SGD(model.parameters())
    for i, batch in enumerate(batches(40, s, generator("seed", "run", "sampling"))):
        optimizer.param_groups[0]["lr"] = s.lr_at(i, 5)
        optimizer.zero_grad()
        x, y = unit(torch.from_numpy(split.images[batch])), torch.from_numpy(split.labels[batch])
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    found, _ = trained(s)
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_is_bfloat16_where_the_cpu_has_it(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    one, _ = trained(settings(lr=0.1))
    other, _ = trained(settings(lr=0.1, precision="auto"))
    for name, value in one.items():
        assert value.dtype == other[name].dtype == torch.float32
        difference = (value - other[name]).abs().max()
        assert 0 < difference < 0.01 if native else difference == 0


def test_features_are_trained_on_as_they_are():
    """float32 (N, F) is not divided by 255."""
    rng = np.random.default_rng(0)
    split = Split(rng.normal(size=(24, 6)).astype(np.float32), rng.integers(0, 3, 24))
    model, reference = nn.Linear(6, 3), nn.Linear(6, 3)
    reference.load_state_dict(model.state_dict())
    train(model, split, split, settings(epochs=1, batch_size=24, lr=0.3), ("features",))
    F.cross_entropy(reference(torch.from_numpy(split.images)), torch.from_numpy(split.labels)).backward()
    torch.testing.assert_close(model.weight, reference.weight - 0.3 * reference.weight.grad)


def test_no_clipping_and_no_noise_is_sgd():
    sgd, _ = trained(settings(momentum=0.5))
    dp, history = trained(settings(momentum=0.5, clip=1e9, noise_std=0.0))
    for name, value in sgd.items():
        torch.testing.assert_close(dp[name], value, rtol=1e-5, atol=1e-6)
    assert history[-1]["clipped"] == 0 and history[-1]["mean_norm"] > 0


def test_scale_law():
    """With every gradient clipped, (C, lr) and (C / 4, 4 lr) at the same sigma are one algorithm."""
    one, history = trained(settings(clip=0.04, noise_std=0.04 * 1.3, lr=0.5))
    other, _ = trained(settings(clip=0.01, noise_std=0.01 * 1.3, lr=2.0))
    assert {record["clipped"] for record in history} == {1.0}
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_noise_has_the_stated_law():
    """With a tiny clip, a step is noise: lr / b * N(0, noise_std^2) in each coordinate."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 400))
    start = model[1].weight.detach().clone()
    s = settings(epochs=1, clip=1e-8, noise_std=3.0, lr=0.1)
    train(model, data(8), data(8), s, ("law",))
    steps = ((start - model[1].weight.detach()) * s.batch_size / s.lr).flatten().double().numpy()
    assert stats.kstest(steps, "norm", args=(0, 3.0)).pvalue > 1e-3
    assert steps.std() == pytest.approx(3.0, rel=0.02)


def test_shuffled_batches_partition_the_data():
    s = settings(batch_size=6)
    first, second = (torch.cat(list(batches(40, s, random))) for random in [torch.Generator()] * 2)
    assert len(first) == 36 and len(first.unique()) == 36
    assert not torch.equal(first, second)
    assert [len(b) for b in batches(40, s, torch.Generator())] == [6] * 6


def test_poisson_batches_have_the_binomial_law():
    s, n = settings(batch_size=8, sampling="poisson"), 40
    random = torch.Generator().manual_seed(0)
    drawn = [batch for _ in range(400) for batch in batches(n, s, random)]
    sizes = np.array([len(b) for b in drawn])
    expected = stats.binom.pmf(np.arange(n + 1), n, 8 / n) * len(sizes)
    observed = np.bincount(sizes, minlength=n + 1)
    common = expected > 5
    rest = [observed[~common].sum()], [expected[~common].sum()]
    test = stats.chisquare(np.append(observed[common], rest[0]), np.append(expected[common], rest[1]))
    assert test.pvalue > 1e-3
    each = np.bincount(torch.cat(drawn), minlength=n) / len(drawn)
    assert abs(each - 8 / n).max() < 5 * math.sqrt(0.2 * 0.8 / len(drawn))


@pytest.mark.parametrize("private", [True, False])
def test_empty_poisson_batches(private):
    """At b = 1, a third of the batches is empty: noise only, or nothing."""
    extra = {"clip": 1.0, "noise_std": 0.5} if private else {}
    s = settings(batch_size=1, sampling="poisson", lr=0.01, **extra)
    assert any(len(b) == 0 for b in batches(20, s, generator("seed", "run", "sampling")))
    found, _ = trained(s, n=20)
    assert all(torch.isfinite(value).all() for value in found.values())


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("extra", "dropout"),
    [
        ({}, 0.0),
        ({"clip": 0.5, "noise_std": 0.4, "sampling": "poisson", "momentum": 0.8}, 0.0),
        ({"augment": ["flip", "crop"], "schedule": "one_cycle"}, 0.3),
    ],
    ids=["SGD", "DP-SGD", "dropout and augmentation"],
)
def test_killed_and_resumed_is_the_same_bytes(tmp_path, monkeypatch, extra, dropout):
    s, path = settings(epochs=5, **extra), tmp_path / "checkpoint"
    torch.manual_seed(1)
    whole, told = trained(s, model=net(dropout=dropout))
    torch.manual_seed(2)  # the global generator is no part of it

    calls = 0

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return evaluate(*arguments)

    evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", dying)
    with pytest.raises(Killed):
        trained(s, model=net(dropout=dropout), checkpoint=path)
    resumed, again = trained(s, model=net(dropout=dropout), checkpoint=path)
    assert calls == 3 + 3  # two epochs were not trained again
    assert again == told
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:50])])
def test_damaged_checkpoint_is_not_used(tmp_path, harm, caplog):
    s, path = settings(epochs=3), tmp_path / "checkpoint"
    whole, _ = trained(s, checkpoint=path)
    harm(path)
    again, _ = trained(s, checkpoint=path)
    assert "damaged" in caplog.text
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    "change", [{"s": settings(epochs=3, lr=0.3)}, {"code": "other"}, {"n": 48}], ids=["lr", "code", "data"]
)
def test_checkpoint_of_another_training_is_not_used(tmp_path, change):
    path = tmp_path / "checkpoint"
    trained(settings(epochs=3), checkpoint=path)
    arguments = {"s": settings(epochs=3)} | change
    fresh, _ = trained(**arguments)
    other, _ = trained(**arguments, checkpoint=path)
    assert all(torch.equal(other[name], fresh[name]) for name in fresh)


def test_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    checkpoints.save(path, {"a": torch.ones(3)}, {"epoch": 1}, "me")

    def full(*arguments, **more):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(path, {"a": torch.zeros(3)}, {"epoch": 2}, "me")
    tensors, state = checkpoints.load(path, "me")
    assert state == {"epoch": 1} and torch.equal(tensors["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_mechanism():
    s = settings(epochs=50, batch_size=256, clip=0.5, noise_std=1.3, sampling="poisson")
    assert s.mechanism(60_000) == {
        "sampling": "poisson",
        "noise_multiplier": 2.6,
        "sample_rate": 256 / 60_000,
        "steps": 11_700,
        "epochs": 50,
    }
    assert settings().mechanism(40)["noise_multiplier"] is None


def test_bad_input():
    with pytest.raises(UserError, match="batch_size 41 is larger than the training set of 40"):
        trained(settings(batch_size=41))
    with pytest.raises(UserError, match="diverged in epoch 1"):
        trained(settings(lr=1e38))


@pytest.mark.parametrize("extra", [{}, {"clip": 0.5, "noise_std": 0.0, "engine": "functional"}])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_cuda_agrees_with_cpu(extra):
    s = settings(**extra)
    cpu, _ = trained(s)
    cuda, _ = trained(s, model=net().cuda())
    for name, value in cpu.items():
        torch.testing.assert_close(cuda[name].cpu(), value, rtol=1e-3, atol=1e-4)
