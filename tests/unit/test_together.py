"""Trainings side by side against the same trainings alone."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from dprobust import together, training
from dprobust.arrays import Split
from dprobust.engines import FunctionalEngine
from dprobust.errors import UserError
from dprobust.models.networks import Normalize
from dprobust.recipe import Training
from dprobust.together import Stack, train_together, why_not

SHAPES = {
    "lenet": lambda: nn.Sequential(
        Normalize([0.1], [0.3]),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, stride=1, padding=1, dilation=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 3 * 3, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    ),
    "smooth": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, bias=False), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 3, bias=False)
    ),
    "head": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3)),
}
# What trainings side by side may differ by from the same alone, relative to the largest parameter: float32 products
# are summed in another order, and a step amplifies what the one before left.
ERROR = 2e-5


def network(kind, seed):
    torch.manual_seed(seed)
    return SHAPES[kind]()


def tied():
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, second)


def hooked():
    model = network("head", 0)
    model[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


def data(n, seed=0):
    random = np.random.default_rng(seed)
    return Split(random.integers(0, 256, (n, 1, 8, 8), np.uint8), random.integers(0, 3, n), 3)


def settings(**changes):
    return Training(
        **({"epochs": 2, "batch_size": 8, "lr": 0.2, "clip": 0.5, "sigma": 0.7, "sampling": "poisson"} | changes)
    )


def largest_difference(one, other):
    found = [(a - b).abs().max() / a.abs().max() for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    return max(value.item() for value in found)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("sampling", ["poisson", "truncated_poisson", "shuffle", "balls_in_bins"])
def test_each_ends_as_it_does_alone(kind, sampling):
    each = [
        settings(sampling=sampling),
        settings(sampling=sampling, sigma=1.5, clip=0.1, lr=0.5, momentum=0.5),
        settings(sampling=sampling, noise="sigma", schedule="one_cycle", momentum=0.9, nesterov=True),
        settings(sampling=sampling, sigma=None, weight_decay=0.01),
        settings(sampling=sampling, sigma=None, clip=None),
    ]
    streams = [("s", i) for i in range(len(each))]
    alone = [network(kind, i) for i in range(len(each))]
    models = copy.deepcopy(alone)
    expected = [training.train(m, data(60), data(30, 1), s, st) for m, s, st in zip(alone, each, streams, strict=True)]
    found = train_together(models, data(60), data(30, 1), each, streams)
    for one, other in zip(alone, models, strict=True):
        assert largest_difference(one, other) < ERROR
    for first, second in zip(expected, found, strict=True):
        assert [record.keys() for record in first] == [record.keys() for record in second]
        for a, b in zip(first, second, strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def test_the_others_do_not_matter():
    def trained(sigmas):
        models = [network("lenet", 0) for _ in sigmas]
        streams = [("s", i) for i in range(len(sigmas))]
        train_together(models, data(60), data(10, 1), [settings(sigma=sigma) for sigma in sigmas], streams)
        return models[0]

    assert largest_difference(trained([0.7, 0.7, 0.7]), trained([0.7, 3.0, 0.1])) < ERROR
    assert largest_difference(trained([0.7]), trained([0.8])) > 100 * ERROR


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("clip_function", ["abadi", "automatic"])
def test_clipped_sums_are_those_of_torch_func(kind, clip_function):
    models, random = [network(kind, i) for i in range(3)], torch.Generator().manual_seed(0)
    x, y = torch.rand(3, 7, 1, 8, 8, generator=random), torch.randint(3, (3, 7), generator=random)
    rows = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [False] * 7])
    clip = torch.tensor([[0.5], [0.05], [1.0]])
    padded = x.masked_fill(~rows[..., None, None, None], torch.nan)
    stack = Stack(models)
    sums, norms = stack.clipped_sums(padded, y, rows, clip, clip_function)
    for i, (model, views) in enumerate(zip(models, [stack.views(s[None]) for s in sums], strict=True)):
        expected, lengths = FunctionalEngine(model, clip_function)(x[i][rows[i]], y[i][rows[i]], clip[i].item())
        torch.testing.assert_close(norms[i][rows[i]], lengths, rtol=1e-5, atol=1e-7)
        assert (norms[i][~rows[i]] == 0).all()
        for name, value in expected.items():
            torch.testing.assert_close(views[name][0], value, rtol=1e-4, atol=1e-6)
    assert (sums[2] == 0).all()


def test_no_example_adds_more_than_the_bound():
    """One example a time, of tiny and of huge gradients: what it adds is measured in float64."""
    stack, random = Stack([network("lenet", i) for i in range(4)]), torch.Generator().manual_seed(1)
    stack.flat *= torch.tensor([0.01, 1.0, 30.0, 1000.0])[:, None]
    for clip in (1e-6, 0.3, 100.0):
        for scale in (1e-3, 1.0, 1e3):
            x = scale * torch.randn(4, 1, 1, 8, 8, generator=random)
            y = torch.randint(3, (4, 1), generator=random)
            sums, norms = stack.clipped_sums(x, y, torch.ones(4, 1, dtype=torch.bool), torch.full((4, 1), clip))
            added = sums.double().norm(dim=1)
            assert (added <= clip * (1 + 1e-6)).all()
            assert torch.allclose(added, norms[:, 0].double().clamp(max=clip), rtol=1e-5)


def test_gradients_that_are_not_finite_add_nothing():
    stack = Stack([network("lenet", 0)])
    x = torch.rand(1, 4, 1, 8, 8)
    y, rows, clip = torch.zeros(1, 4).long(), torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 1)
    expected, _ = stack.clipped_sums(x[:, 1:], y[:, 1:], rows[:, 1:], clip)
    x[0, 0] = torch.nan
    sums, norms = stack.clipped_sums(x, y, rows, clip)
    assert norms[0, 0].isnan() and torch.allclose(sums, expected, atol=1e-6)


def test_killed_and_called_again_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    each, streams = [settings(epochs=4), settings(epochs=4, momentum=0.9, sigma=1.0)], [("a",), ("b",)]

    def go(path=None):
        models = [network("lenet", i) for i in range(2)]
        return models, train_together(models, data(60), data(10, 1), each, streams, path, "code")

    whole, expected = go()
    original, calls = together._evaluate, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(together, "_evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "c")
    models, history = go(tmp_path / "c")
    assert len(calls) == 3 + 2 and history == expected  # two epochs were kept
    for one, other in zip(whole, models, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    # Another training does not go on from it.
    each[0] = settings(epochs=4, sigma=0.9)
    calls.clear()
    calls += [1] * 5
    go(tmp_path / "c")
    assert len(calls) == 9


def test_poisson_batches_are_never_cut(monkeypatch):
    """The width grows where a batch is larger than what is kept free for it."""
    monkeypatch.setattr(Training, "cap", property(lambda self: 8))
    alone, model = network("lenet", 0), network("lenet", 0)
    training.train(alone, data(60), data(10, 1), settings(), ("s",))
    train_together([model], data(60), data(10, 1), [settings()], [("s",)])
    assert largest_difference(alone, model) < ERROR


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)),
            {},
            "no rule with a model axis for 1 .LayerNorm",
        ),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), {}, "for 0 .Conv2d"),
        (nn.Linear(2, 2), {}, "is a Linear, not a plain sequence"),
        (SHAPES["head"]().requires_grad_(False), {}, "frozen"),
        (SHAPES["head"](), {"randomness": "secret"}, "sets randomness"),
        (SHAPES["head"](), {"augment": ["flip"]}, "sets augment"),
        (nn.Sequential(nn.Flatten(), *[nn.ReLU()] * 2), {}, "twice"),
        (tied(), {}, "twice"),
        (nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)), {}, "1 .ReLU. works in place"),
        (hooked(), {}, "has hooks"),
    ],
    ids=range(10),
)
def test_what_cannot_be_side_by_side(model, changes, reason):
    assert reason.split(" .")[0] in why_not(model, settings(**changes))
    with pytest.raises(UserError, match=f"training together: .*{reason}"):
        train_together([model], data(60), data(10, 1), [settings(**changes)], [("s",)])


def test_runs_that_differ_in_shape():
    models = [network("head", 0), network("head", 1)]
    with pytest.raises(UserError, match="the runs differ in batch_size"):
        train_together(models, data(60), data(9), [settings(), settings(batch_size=9)], [("a",), ("b",)])
    with pytest.raises(ValueError, match="must have the same layers"):
        Stack([network("head", 0), network("lenet", 0)])


def test_a_training_that_diverges():
    models = [network("head", 0), network("head", 1)]
    each = [settings(), settings(lr=1e30, clip=None, sigma=None)]
    with pytest.raises(UserError, match="diverged in epoch 1: run 1"):
        train_together(models, data(60), data(9), each, [("a",), ("b",)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_captured_steps_are_the_plain_ones(monkeypatch):
    def trained():
        models = [network("lenet", i).cuda() for i in range(3)]
        each, streams = [settings(sigma=0.5 + i) for i in range(3)], [("s", i) for i in range(3)]
        train_together(models, data(60), data(10, 1), each, streams)
        return models

    captured = trained()
    monkeypatch.setattr(together._Step, "capture", lambda self: None)
    for one, other in zip(captured, trained(), strict=True):
        assert largest_difference(one, other) < ERROR
    assert not math.isnan(largest_difference(captured[0], captured[1]))
