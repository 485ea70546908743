import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import stats
from torch import nn
from torch.nn import functional as F

from dprobust import checkpoints, training
from dprobust.arrays import Split
from dprobust.errors import UserError
from dprobust.models.networks import unit
from dprobust.noise import residuals
from dprobust.privacy import epsilon, resolve, shuffle_epsilon
from dprobust.recipe import Stop, Training
from dprobust.seeds import generator, normal_generator
from dprobust.training import batches, hold_out, mislabel, train


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


def trained(s, n=40, model=None, stream=("seed", "run"), **more):
    model = model or net()
    history = train(model, data(n), data(16, 1), s, stream, **more)
    return dict(model.named_parameters()), history


def per_example(model, x, y):
    rows = []
    for xi, yi in zip(x, y, strict=True):
        grads = torch.autograd.grad(F.cross_entropy(model(xi[None]), yi[None]), list(model.parameters()))
        rows.append([g.detach().double() for g in grads])
    return rows


def drawn(model, std, step, stream=("seed", "run")):
    """The noise of a step, by parameter."""
    sizes = [p.numel() for p in model.parameters()]
    flat = std * normal_generator(*stream, "noise", step).standard_normal(sum(sizes))
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [torch.from_numpy(part).view(p.shape) for part, p in zip(parts, model.parameters(), strict=True)]


def reference(model, s, n):
    """Algorithm 1 written out in float64, with the batches and the noise of the real streams; then momentum, weight
    decay and schedule on what it gives."""
    split, random, i = data(n), generator("seed", "run", "sampling"), 0
    velocities = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    steps = s.epochs * (n // s.batch_size)
    for _ in range(s.epochs):
        for batch in batches(n, s, random):
            x, y = unit(torch.from_numpy(split.images[batch])), torch.from_numpy(split.labels[batch])
            total = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
            for grads in per_example(model, x, y):
                norm = math.sqrt(sum(g.square().sum().item() for g in grads))
                for t, g in zip(total, grads, strict=True):
                    bound = max(1.0, norm / s.clip) if s.clip and s.clip_function == "abadi" else 1.0
                    t += g * s.clip / (norm + 0.01) if s.clip_function == "automatic" else g / bound
            noise = drawn(model, s.noise_std, i)
            with torch.no_grad():
                for p, t, v, z in zip(model.parameters(), total, velocities, noise, strict=True):
                    g = (t + z) / s.batch_size + s.weight_decay * p
                    v.mul_(s.momentum).add_(g)
                    p -= (s.lr_at(i, steps) * (g + s.momentum * v if s.nesterov else v)).float()
            i += 1
    return dict(model.named_parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"clip": 2.2, "noise_std": 0.2, "sampling": "poisson"},
        {"clip": 1.2, "noise_std": 0.2},
        {"clip": 2.0, "sigma": 0.1, "sampling": "poisson", "momentum": 0.9, "weight_decay": 0.1, "lr": 0.1},
        {"clip": 1.2, "sigma": 0.1, "momentum": 0.8, "nesterov": True, "schedule": "one_cycle"},
        {"clip": 1.2},
        {"clip": 1.2, "sigma": 0.1, "clip_function": "automatic"},
        {"clip": 1.8, "sigma": 0.0, "sampling": "poisson", "momentum": 0.5},
        {"noise_std": 0.4},
        {"noise_std": 0.4, "sampling": "poisson", "momentum": 0.5, "schedule": "one_cycle"},
    ],
    ids=str,
)
def test_a_training_is_algorithm_1(options):
    s = settings(**options, engine="functional")
    expected = reference(net(), s, 40)
    found, history = trained(s)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=2e-6)
    told = {"epoch", "test_accuracy", "test_loss"} | ({"clipped", "mean_norm"} if s.clip else set())
    assert set(history[0]) == told
    assert s.clip is None or 0 < sum(record["clipped"] for record in history) < s.epochs


def test_without_noise_nothing_is_drawn_from_its_stream(monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("drawn")

    monkeypatch.setattr(training.Noise, "sampler", refuse)
    trained(settings(clip=0.5), model=net())
    with pytest.raises(AssertionError, match="drawn"):
        trained(settings(clip=0.5, sigma=0.1), model=net())


def test_parameters_that_share_a_gradient_have_noise_of_their_own():
    """Autograd gives one tensor as the gradient of both."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.zeros(5)) for _ in range(2))

        def forward(self, x):
            return (self.a + self.b).expand(len(x), 5)

    model = Twice()
    train(model, data(8), data(8), settings(epochs=1, lr=8.0, noise_std=0.5), ("twins",))
    a, b = drawn(model, 0.5, 0, ("twins",))
    torch.testing.assert_close(model.a - model.b, (b - a).float(), rtol=1e-4, atol=1e-5)
    assert (model.a - model.b).abs().max() > 0.1


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
    found, _ = trained(s)
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


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


def learnable(n, seed=0):
    """Classes that the brightest of five columns tells."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 100, (n, 1, 8, 8), np.uint8), rng.integers(0, 5, n)
    images[np.arange(n), 0, :, labels] += 150
    return Split(images, labels)


STOP = {"accuracy": 0.6, "holdout": 50, "every": 7}


def stopped(s, model=None, n=250, **more):
    model = model or net(dropout=0.3)
    return model, train(model, learnable(n), data(16, 1), s, ("seed", "stop"), **more)


def test_training_stops_where_the_accuracy_is_reached():
    s = settings(epochs=20, lr=0.1, stop=Stop(**STOP))
    model, history = stopped(s)
    rest, held = hold_out(learnable(250), s, ("seed", "stop"))
    last = history[-1]
    assert last["epoch"] == len(history) < 20 and last["step"] % 7 == 0 and last["step"] > 25
    assert last["holdout_accuracy"] == training.evaluate(model, held)["test_accuracy"] >= 0.6
    assert all(record["holdout_accuracy"] < 0.6 for record in history[:-1])
    assert [record["step"] for record in history[:-1]] == [25 * epoch for epoch in range(1, len(history))]

    # The checks leave no trace: before the last epoch, as without them.
    plain = train(net(dropout=0.3), rest, data(16, 1), settings(epochs=len(history), lr=0.1), ("seed", "stop"))
    kept = ("epoch", "test_accuracy", "test_loss")
    assert [{key: record[key] for key in kept} for record in history[:-1]] == plain[:-1]


def test_a_stopped_training_is_one_of_so_many_steps(monkeypatch):
    """The bytes of one whose batches end where it stopped."""
    s = settings(epochs=20, lr=0.1, stop=Stop(**STOP))
    model, history = stopped(s)
    rest, _ = hold_out(learnable(250), s, ("seed", "stop"))
    left, every = history[-1]["step"], training.batches
    assert left % 25 != 0

    def some(*arguments):
        nonlocal left
        for batch in every(*arguments):
            if left == 0:
                return
            left -= 1
            yield batch

    monkeypatch.setattr(training, "batches", some)
    plain = net(dropout=0.3)
    train(plain, rest, data(16, 1), settings(epochs=len(history), lr=0.1), ("seed", "stop"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_checks_leave_no_trace():
    """An accuracy that is reached at the very last step: the same bytes as without checks, dropout included."""
    base = settings(epochs=2, lr=0.3, augment=["flip"], clip=1.0)
    s = base.model_copy(update={"stop": Stop(accuracy=1e-9, holdout=50, every=50)})
    checked, history = stopped(s)
    assert history[-1]["step"] == 50
    rest, _ = hold_out(learnable(250), s, ("seed", "stop"))
    plain = net(dropout=0.3)
    train(plain, rest, data(16, 1), base, ("seed", "stop"))
    assert all(torch.equal(a, b) for a, b in zip(checked.parameters(), plain.parameters(), strict=True))


def test_a_model_that_draws_in_eval_mode_is_trained_the_same():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x)

    models = []
    for every in (1, 50):
        s = settings(epochs=2, lr=1e-4, stop=Stop(accuracy=0.999, holdout=50, every=every))
        models.append(nn.Sequential(Noisy(), net(dropout=0.3)))
        with pytest.raises(UserError, match="stop.accuracy"):
            stopped(s, model=models[-1])
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_mislabelled_examples_are_drawn_and_half_of_them_left_out():
    whole, s = learnable(250), settings(mislabelled=20)
    found = mislabel(whole, s, ("a",))
    canaries = [*found.included.tolist(), *found.left_out.tolist()]
    assert len(found.data) == 230 == s.trained_on(250) and len(set(canaries)) == 40
    wrong = found.labels != whole.labels
    assert set(np.flatnonzero(wrong)) == set(canaries) and found.labels.max() <= whole.labels.max()
    kept = np.setdiff1d(np.arange(250), found.left_out)
    np.testing.assert_array_equal(found.data.images, whole.images[kept])
    np.testing.assert_array_equal(found.data.labels, found.labels[kept])
    other = mislabel(whole, s, ("b",))
    assert set(other.included) != set(found.included)
    # A training with them is one on what they leave.
    one, two = net(), net()
    train(one, whole, data(16, 1), s, ("a",))
    train(two, found.data, data(16, 1), settings(), ("a",))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with pytest.raises(UserError, match="mislabelled: 126 asks for 252 examples of two classes or more; there are 250"):
        mislabel(whole, settings(mislabelled=126), ("a",))


def test_what_is_held_out_is_drawn_and_not_trained_on():
    s, whole = settings(stop=Stop(**STOP)), learnable(250)
    rest, held = hold_out(whole, s, ("a",))
    assert (len(rest), len(held)) == (200, 50)
    rows = {bytes(image) for image in whole.images}
    assert len(rows) == 250
    assert {bytes(i) for i in rest.images} | {bytes(i) for i in held.images} == rows
    order = [next(i for i, image in enumerate(whole.images) if np.array_equal(image, kept)) for kept in rest.images]
    assert order == sorted(order) and np.array_equal(rest.labels, whole.labels[order])
    assert not np.array_equal(held.images, whole.images[:50])
    again, other = hold_out(whole, s, ("a",))[1], hold_out(whole, s, ("b",))[1]
    assert np.array_equal(held.images, again.images) and not np.array_equal(held.images, other.images)


def test_of_features_and_their_mirror_images_the_features_are_held_out():
    rng = np.random.default_rng(0)
    features = Split(rng.normal(size=(60, 2, 7)).astype(np.float32), rng.integers(0, 5, 60))
    s = settings(epochs=1, augment=["flip"], stop=Stop(accuracy=1e-9, holdout=20, every=5))
    rest, held = hold_out(features, s, ("f",))
    assert rest.images.shape == (40, 2, 7) and held.images.shape == (20, 7)
    assert all(any(np.array_equal(image, f[0]) for f in features.images) for image in held.images)
    test = Split(features.images[:, 0], features.labels)
    torch.manual_seed(0)
    history = train(nn.Linear(7, 5), features, test, s, ("f",))
    assert history[-1]["step"] == 5 and history[-1]["holdout_accuracy"] > 0


def test_given_examples_are_the_ones_checked():
    s = settings(epochs=1, stop=Stop(accuracy=0.01, holdout=40, every=25))
    model = net()
    held = Split(np.zeros((40, 1, 8, 8), np.uint8), np.full(40, 3))
    with torch.no_grad():
        model[-1].bias[3] = 100.0
    history = train(model, learnable(200), data(16, 1), s, ("given",), holdout=held)
    assert history[-1]["holdout_accuracy"] == 1.0 and history[-1]["step"] == 25
    with pytest.raises(ValueError, match="40 examples are held out, but settings.stop.holdout is 30"):
        train(
            model,
            learnable(200),
            data(16, 1),
            s.model_copy(update={"stop": Stop(accuracy=0.5, holdout=30)}),
            ("given",),
            holdout=held,
        )


def test_an_accuracy_that_is_never_reached(tmp_path):
    s, path = settings(epochs=2, lr=1e-6, stop=Stop(accuracy=0.99, holdout=50, every=10)), tmp_path / "checkpoint"
    errors = []
    for _ in range(2):  # the second time from the checkpoint
        with pytest.raises(UserError) as caught:
            stopped(s, checkpoint=path)
        errors.append(str(caught.value))
    assert errors[0] == errors[1] and "\n" not in errors[0]
    model = net(dropout=0.3)
    held = hold_out(learnable(250), s, ("seed", "stop"))[1]
    best = training.evaluate(model, held)["test_accuracy"]
    assert f"stop.accuracy: 0.99 was not reached in 2 epochs (at best {best:.4f}" in errors[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": Stop(accuracy=0.5, holdout=250)}, "stop.holdout: 250 of 250 training examples leave none"),
        ({"stop": Stop(accuracy=0.5, holdout=300)}, "stop.holdout: 300 of 250"),
        (
            {"stop": Stop(accuracy=0.5, holdout=245)},
            "batch_size 8 is larger than the training set of 250, less the 245",
        ),
        ({"stop": Stop(accuracy=0.5, holdout=50, every=51)}, "stop.every: 51, but the training has 50 steps"),
    ],
)
def test_a_stop_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        stopped(settings(**changes))
    assert "\n" not in str(caught.value)


class Killed(Exception):
    pass


def kill(monkeypatch, after):
    """`train` dies at the end of an epoch, in a test of accuracy on 16 examples; a list that counts them all."""
    calls = []

    def dying(model, split, *arguments):
        if len(split) == 16:
            calls.append(split)
            if len(calls) == after + 1:
                raise Killed
        return evaluate(model, split, *arguments)

    evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", dying)
    return calls


@pytest.mark.parametrize(
    ("extra", "dropout"),
    [
        ({}, 0.0),
        ({"clip": 0.5, "noise_std": 0.4, "sampling": "poisson", "momentum": 0.8}, 0.0),
        ({"augment": ["flip", "crop"], "schedule": "one_cycle"}, 0.3),
        ({"clip": 0.5, "momentum": 0.8, "nesterov": True}, 0.3),
        ({"noise_std": 0.4, "weight_decay": 0.01}, 0.3),
    ],
    ids=["SGD", "DP-SGD", "dropout and augmentation", "clipping only", "noise only"],
)
def test_killed_and_resumed_is_the_same_bytes(tmp_path, monkeypatch, extra, dropout):
    s, path = settings(epochs=5, **extra), tmp_path / "checkpoint"
    torch.manual_seed(1)
    whole, told = trained(s, model=net(dropout=dropout))
    torch.manual_seed(2)  # the global generator is no part of it
    calls = kill(monkeypatch, 2)
    with pytest.raises(Killed):
        trained(s, model=net(dropout=dropout), checkpoint=path)
    resumed, again = trained(s, model=net(dropout=dropout), checkpoint=path)
    assert len(calls) == 3 + 3  # two epochs were not trained again
    assert again == told
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("randomness", ["reproducible", "secret"])
def test_what_is_resumed_has_new_noise_and_batches_if_they_are_secret(tmp_path, monkeypatch, randomness):
    """A third epoch that was killed at its end, and the one that takes its place."""
    s = settings(epochs=4, clip=0.5, sigma=1.3, sampling="poisson", randomness=randomness, augment=["flip"])
    path, killed, resumed = tmp_path / "checkpoint", [], []
    kill(monkeypatch, 2)
    with pytest.raises(Killed):
        trained(s, checkpoint=path, watch=killed.append)
    with safe_open(path, framework="pt") as file:
        kept = {name for name in file.keys() if name.startswith("generator.")}  # noqa: SIM118
    assert kept == {"generator.augmentation"} | ({"generator.sampling"} if randomness == "reproducible" else set())
    trained(s, checkpoint=path, watch=resumed.append)
    assert [step.step for step in resumed] == list(range(10, 20)) and [step.step for step in killed] == list(range(15))
    one, other = (
        np.array([np.concatenate(list(residuals(step, s.noise_std).values())) for step in steps])
        for steps in (killed[10:], resumed[:5])
    )
    same = [
        step.sums["0.weight"].equal(again.sums["0.weight"]) for step, again in zip(killed[10:], resumed, strict=False)
    ]
    if randomness == "reproducible":
        np.testing.assert_array_equal(one, other)
        assert all(same)
    else:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) * math.sqrt(one.size) < 5.5
        assert not same[0]  # from the same parameters: another batch


def test_secret_trainings_share_neither_noise_nor_batches():
    s, n = settings(epochs=1, clip=0.5, sigma=1.3, sampling="poisson", randomness="secret"), 80
    found = [[], []]
    for steps in found:
        trained(s, n=n, watch=steps.append)
    assert not found[0][0].sums["0.weight"].equal(found[1][0].sums["0.weight"])
    one, other = (np.concatenate(list(residuals(steps[0], s.noise_std).values())) for steps in found)
    assert abs(np.corrcoef(one, other)[0, 1]) * math.sqrt(one.size) < 5.5


def test_a_stopped_training_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    s, path = settings(epochs=20, lr=0.1, stop=Stop(**STOP)), tmp_path / "checkpoint"
    whole, told = stopped(s)
    assert len(told) > 2
    calls = kill(monkeypatch, 1)
    with pytest.raises(Killed):
        stopped(s, checkpoint=path)
    for trained_again in (len(told) - 1, 0):  # the second time it has ended already
        calls.clear()
        calls += [None] * 9
        resumed, again = stopped(s, checkpoint=path)
        assert len(calls) == 9 + trained_again and again == told
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


class Scaled(nn.Module):
    """A hyperparameter that its repr does not tell, a buffer that its state_dict leaves out."""

    def __init__(self, scale=1.0, offset=0.0):
        super().__init__()
        self.scale = scale
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def forward(self, x):
        return self.scale * x - self.offset


def classifier(hidden=(50, 50), dropout=0.1, init=0, scale=1.0, offset=0.5, frozen=False, inplace=False):
    torch.manual_seed(init)
    layers, width = [Scaled(scale, offset), nn.Flatten()], 64
    for units in hidden:
        layers += [nn.Dropout(dropout), nn.Linear(width, units), nn.ReLU(inplace)]
        width = units
    layers[3].requires_grad_(not frozen)
    return nn.Sequential(*layers, nn.Linear(width, 5))


@pytest.mark.parametrize(
    "change",
    [
        {"init": 1},
        {"offset": 0.1307},
        {"scale": 2.0},
        {"hidden": (50,)},
        {"hidden": (50, 60)},
        {"hidden": (50, 50, 50)},
        {"dropout": 0.2},
        {"frozen": True},
        {"inplace": True},
    ],
    ids=str,
)
def test_checkpoint_of_another_model_is_not_used(tmp_path, monkeypatch, change):
    s, path = settings(epochs=4, momentum=0.5), tmp_path / "checkpoint"
    whole, told = trained(s, model=classifier(**change))
    kill(monkeypatch, 3)
    with pytest.raises(Killed):
        trained(s, model=classifier(), checkpoint=path)
    assert path.exists()
    found, again = trained(s, model=classifier(**change), checkpoint=path)
    assert again == told
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_every_buffer_resumes(tmp_path, monkeypatch):
    """Batches seen, in a buffer that its state_dict leaves out, and running statistics."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()), persistent=False)

        def forward(self, x):
            if self.training:
                self.seen += 1
            return x / (1 + 0.01 * self.seen)

    def build():
        torch.manual_seed(0)
        return nn.Sequential(Counting(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 5))

    s, path, whole, model = settings(epochs=4), tmp_path / "checkpoint", build(), build()
    trained(s, model=whole)
    kill(monkeypatch, 2)
    with pytest.raises(Killed):
        trained(s, model=build(), checkpoint=path)
    trained(s, model=model, checkpoint=path)
    assert whole[0].seen == 20
    for name, value in whole.named_buffers():
        assert torch.equal(model.get_buffer(name), value), name
    for name, value in whole.named_parameters():
        assert torch.equal(model.get_parameter(name), value), name


def test_names_of_a_models_own_do_not_clash_with_the_checkpoints(tmp_path, monkeypatch):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.rand(5, 64))
            self.velocity = nn.Linear(64, 5)

        def forward(self, x):
            return self.velocity(x.flatten(1)) + x.flatten(1) @ self.weight.T

    s, path = settings(epochs=4, momentum=0.5), tmp_path / "checkpoint"
    whole, _ = trained(s, model=Named())
    kill(monkeypatch, 2)
    with pytest.raises(Killed):
        trained(s, model=Named(), checkpoint=path)
    found, _ = trained(s, model=Named(), checkpoint=path)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


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
    "change",
    [
        {"s": settings(epochs=3, lr=0.3)},
        {"s": settings(epochs=3, clip=0.1)},
        {"s": settings(epochs=3, noise_std=0.1)},
        {"code": "other"},
        {"n": 48},
        {"stream": ("seed", "other")},
    ],
    ids=["lr", "clip", "noise", "code", "data", "stream"],
)
def test_checkpoint_of_another_training_is_not_used(tmp_path, change):
    path = tmp_path / "checkpoint"
    trained(settings(epochs=3), checkpoint=path)
    arguments = {"s": settings(epochs=3)} | change
    fresh, _ = trained(**arguments)
    other, _ = trained(**arguments, checkpoint=path)
    assert all(torch.equal(other[name], fresh[name]) for name in fresh)


def test_checkpoint_of_other_threads_is_not_used(tmp_path, caplog):
    path, threads = tmp_path / "checkpoint", torch.get_num_threads()
    trained(settings(), checkpoint=path)
    try:
        torch.set_num_threads(threads + 1)
        with caplog.at_level("INFO"):
            trained(settings(), checkpoint=path)
    finally:
        torch.set_num_threads(threads)
    assert "starting over" in caplog.text


def test_a_flipped_bit_anywhere_is_found(tmp_path, caplog):
    """The length, every fifth bit of the header, every seventh of the data: a checkpoint is itself or none."""
    path = tmp_path / "checkpoint"
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.zeros(2, 1), "i": torch.arange(9, dtype=torch.uint8)}
    checkpoints.save(path, tensors, {"epoch": 1, "text": "\u00e4"}, "me")
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    bits = [*range(64), *range(64, 8 * header, 5), *range(8 * header, 8 * len(content), 7)]
    same = 0
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if (found := checkpoints.load(path, "me")) is not None:  # white space of the header says nothing
            same += 1
            assert found[1] == {"epoch": 1, "text": "\u00e4"} and found[0].keys() == tensors.keys()
            assert all(torch.equal(found[0][n], t) and found[0][n].dtype == t.dtype for n, t in tensors.items())
    assert same < 0.02 * len(bits)
    path.write_bytes(content)
    assert checkpoints.load(path, "me") is not None


@pytest.mark.parametrize("length", [0, 4, 8, 60, -1])
def test_a_checkpoint_cut_short_is_not_used(tmp_path, length, caplog):
    path = tmp_path / "checkpoint"
    checkpoints.save(path, {"a": torch.ones(3)}, {}, "me")
    path.write_bytes(path.read_bytes()[:length])
    assert checkpoints.load(path, "me") is None
    assert "damaged" in caplog.text


def test_a_digest_tells_names_types_and_shapes_apart():
    one = checkpoints.digest({"a": torch.zeros(4)})
    others = [
        checkpoints.digest(tensors, text)
        for tensors, text in [
            ({"b": torch.zeros(4)}, ""),
            ({"a": torch.zeros(2, 2)}, ""),
            ({"a": torch.zeros(4, dtype=torch.int32)}, ""),
            ({"a": torch.tensor([0.0, 0.0, 0.0, -0.0])}, ""),
            ({"a": torch.zeros(2), "b": torch.zeros(2)}, ""),
            ({"a": torch.zeros(4)}, "x"),
        ]
    ]
    assert len({one, *others}) == 7
    assert one == checkpoints.digest({"a": torch.zeros(8)[::2]})
    assert checkpoints.digest({"a": torch.zeros(2, dtype=torch.bfloat16), "s": torch.tensor(True), "e": torch.zeros(0)})


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


@pytest.mark.parametrize("rule", ["sigma*clip", "sigma"])
@pytest.mark.parametrize("sampling", ["poisson", "shuffle"])
def test_epsilon_becomes_the_sigma_that_gives_it(rule, sampling):
    s = settings(epochs=3, epsilon=2.0, delta=1e-5, clip=0.3, noise=rule, sampling=sampling, momentum=0.5)
    found = resolve(s, 400)
    assert found.plain() == s.plain() | {"sigma": found.sigma, "epsilon": None, "delta": None}
    accounted = {
        "poisson": lambda multiplier: epsilon(multiplier, 8 / 400, 150, 1e-5),
        "shuffle": lambda multiplier: shuffle_epsilon(multiplier, 3, 1e-5),
    }[sampling]
    multiplier = found.mechanism(400)["noise_multiplier"]
    assert found.noise_std == pytest.approx(multiplier * 0.3)
    assert accounted(multiplier) <= 2.0 < accounted(multiplier * (1 - 1.1e-4))


def test_without_an_epsilon_there_is_nothing_to_resolve():
    for s in (settings(), settings(clip=1.0, sigma=1.3)):
        assert resolve(s, 40) is s


def test_an_epsilon_is_resolved_before_training():
    s = settings(epsilon=2.0, delta=1e-5, clip=1.0)
    with pytest.raises(ValueError, match="dprobust.privacy.resolve"):
        trained(s)
    with pytest.raises(UserError, match="out of reach"):
        resolve(settings(epsilon=1e-9, delta=1e-12, clip=1.0, sampling="poisson"), 40)
    with pytest.raises(UserError, match="batch_size 8 is larger than the training set of 4"):
        resolve(s, 4)


def test_bad_input():
    with pytest.raises(UserError, match="batch_size 41 is larger than the training set of 40"):
        trained(settings(batch_size=41))
    with pytest.raises(UserError, match="diverged in epoch 1"):
        trained(settings(lr=1e30))
    # Gradients that are not finite are left out of the sum, so that parameters may stay finite.
    for randomness in ("reproducible", "secret"):
        with pytest.raises(UserError, match="diverged in epoch 1"):
            trained(settings(lr=1e30, clip=1.0, sigma=1.0, randomness=randomness))


@pytest.mark.parametrize("extra", [{}, {"clip": 0.5, "noise_std": 0.0, "engine": "functional"}])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_cuda_agrees_with_cpu(extra):
    s = settings(**extra)
    cpu, _ = trained(s)
    cuda, _ = trained(s, model=net().cuda())
    for name, value in cpu.items():
        torch.testing.assert_close(cuda[name].cpu(), value, rtol=1e-3, atol=1e-4)
