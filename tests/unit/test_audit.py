"""The audit against closed forms, published numbers and mechanisms of known epsilon; faults planted in a training."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from makers import runs
from scipy import stats
from torch import nn
from torch.nn import functional as F

from dprobust import training
from dprobust.arrays import Split
from dprobust.audit import (
    CanaryNet,
    best_guesses,
    checks,
    epsilon_lower,
    guess,
    influence,
    p_value,
    scaled,
    train_canaries,
)
from dprobust.engines import FunctionalEngine
from dprobust.errors import UserError
from dprobust.measuring import Images
from dprobust.metrics.audit import measure as metric
from dprobust.metrics.audit.display import Display, check
from dprobust.metrics.audit.settings import Metric
from dprobust.metrics.audit.show import show
from dprobust.models.networks import unit
from dprobust.noise import Noise
from dprobust.privacy import epsilon
from dprobust.recipe import Training
from dprobust.showing import Given

PRIVATE = Training(epochs=2, batch_size=64, lr=0.05, sigma=0.1, clip=0.5, sampling="poisson")
"""On 6,400 examples a rate of 0.01 and 200 steps; little noise, so that clipping and sampling are seen as well."""
FAULT = 1e-6
"""A p below it is a fault."""


def audited(settings=PRIVATE, n=6400, canaries=400, stream=(0, "audit")):
    return train_canaries(settings, n, canaries, stream)


def faults(settings=PRIVATE, **more):
    return {check.name for check in checks(audited(settings, **more)) if check.p < FAULT}


# The bound.


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "published"),
    [
        (1000, 100, 75, 1e-4, 0.673),  # arXiv 2305.08846, Appendix D
        (100000, 1510, 1439, 1e-5, 2.675),  # section 7, Figure 11; there cut off after three digits, not rounded
    ],
)
def test_the_bound_is_the_published_one(m, r, v, delta, published):
    assert 0 <= epsilon_lower(m, r, v, delta) - published + 5e-4 < 1.5e-3


def test_at_delta_0_and_all_right_the_bound_is_a_closed_form():
    for r in (1, 3, 40, 1000, 10**6):
        assert epsilon_lower(r, r, r) == pytest.approx(max(0.0, -math.log(0.05 ** (-1 / r) - 1)), rel=1e-9)


def test_at_delta_0_the_bound_is_where_the_p_value_is_one_less_the_confidence():
    for r, v, confidence in ((100, 80, 0.95), (1000, 560, 0.9), (5000, 4999, 0.99), (10**6, 10**6 - 3, 0.95)):
        bound = epsilon_lower(10**6, r, v, confidence=confidence)
        assert p_value(10**6, r, v, bound) == pytest.approx(1 - confidence, rel=1e-6)
        assert bound <= math.log(v / (r - v))


def test_the_p_value_is_the_theorem_written_out():
    m, r, v, delta = 30, 12, 9, Fraction(1, 1000)
    odds = Fraction(3)  # e^epsilon
    q = odds / (1 + odds)
    mass = [math.comb(r, w) * q**w * (1 - q) ** (r - w) for w in range(r + 1)]
    alpha = max(2 * sum(mass[max(0, v - i) : v]) / i for i in range(1, m + 1))
    exact = sum(mass[v:]) + alpha * m * delta
    assert p_value(m, r, v, math.log(3), 1e-3) == pytest.approx(float(exact), rel=1e-12)


def test_nothing_is_refuted_by_chance_and_delta_only_weakens():
    assert epsilon_lower(1000, 100, 50) == epsilon_lower(1000, 0, 0) == epsilon_lower(1000, 100, 3) == 0
    bounds = [epsilon_lower(1000, 100, 80, delta) for delta in (0, 1e-6, 1e-4, 1e-2)]
    assert bounds == sorted(bounds, reverse=True) and bounds[0] - bounds[1] < 1e-3 and bounds[3] == 0
    assert epsilon_lower(10**5, 1000, 1000, 1e-9) == pytest.approx(epsilon_lower(10**5, 1000, 1000), abs=0.1)


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.02])
@pytest.mark.parametrize("value", [0.0, 0.5, 2.0, 6.0])
def test_the_bound_holds_for_randomised_response_in_95_of_100_audits(value, delta):
    """Exactly, over all outcomes: with probability delta the coin is told, else with odds e^epsilon truly."""
    m = 250
    truth = delta + (1 - delta) / (1 + math.exp(-value))
    holds = [epsilon_lower(m, m, v, delta) <= value for v in range(m + 1)]
    coverage = stats.binom.pmf(range(m + 1), m, truth)[holds].sum()
    assert coverage >= 0.95
    if delta == 0 and 0 < value < 5:  # and not by being empty; above 4.4 even all right guesses prove less
        assert coverage < 0.99


def test_the_bound_holds_for_gaussian_mechanisms():
    random, sigma, m, delta = np.random.default_rng(0), 1.0, 400, 1e-5
    true, above = epsilon(sigma, 1.0, 1, delta), 0
    bounds = []
    for _ in range(100):
        included = random.random(m) < 0.5
        score = included + sigma * random.normal(size=m)
        bounds.append(epsilon_lower(m, 60, guess(score, included, 60), delta))
        above += bounds[-1] > true
    assert above == 0 and np.mean(bounds) > 0.8


def test_bad_arguments_of_the_bound():
    for arguments in ((10, 11, 3), (10, 5, 6), (10, 5, -1), (10, 5, 5, 1.0)):
        with pytest.raises(ValueError, match="guesses|delta"):
            epsilon_lower(*arguments)
    with pytest.raises(ValueError, match="confidence"):
        epsilon_lower(10, 5, 5, confidence=1.0)


def test_guesses_are_the_highest_in_and_the_lowest_out():
    score = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    included = np.array([True, False, True, True, False])
    assert [guess(score, included, k) for k in range(6)] == [0, 1, 2, 2, 2, 3]
    with pytest.raises(ValueError, match="guesses"):
        guess(score, included, 6)


# Canaries.


@pytest.mark.parametrize(("n", "canaries"), [(60000, 1000), (6400, 20), (2048, 1000), (64, 64), (64, 200)])
def test_few_examples_have_the_rate_and_the_steps_of_many(n, canaries):
    small, m = scaled(PRIVATE, n, canaries)
    assert m >= canaries and small.steps_per_epoch(m) == PRIVATE.steps_per_epoch(n)
    assert 0 <= small.batch_size / m * n / PRIVATE.batch_size - 1 <= 1 / m
    assert (small.sigma, small.clip, small.epochs) == (PRIVATE.sigma, PRIVATE.clip, PRIVATE.epochs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "schedule": "one_cycle", "weight_decay": 0.1},
        {"weight_decay": 0.3, "nesterov": True},
    ],
)
def test_what_a_step_leaves_in_the_parameters_is_that_of_the_update(changes):
    s = Training(epochs=2, batch_size=5, lr=0.3, clip=1.0, **changes)
    steps = 2 * (20 // 5)
    sums = torch.ones(steps, dtype=torch.float64, requires_grad=True)
    theta = torch.zeros(1, dtype=torch.float64)
    velocity = torch.zeros(1, dtype=torch.float64)
    for t in range(steps):
        g = sums[t] / 5 + s.weight_decay * theta
        velocity = s.momentum * velocity + g
        theta = theta - s.lr_at(t, steps) * (g + s.momentum * velocity if s.nesterov else velocity)
    (expected,) = torch.autograd.grad(-theta, sums)
    np.testing.assert_allclose(influence(s, 20), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("engine", ["fused", "functional", "hooks", "ghost"])
@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "schedule": "one_cycle", "nesterov": True}])
def test_without_noise_a_score_is_how_often_the_canary_was_drawn(engine, changes):
    s = Training(epochs=3, batch_size=20, sigma=1e-6, clip=2.0, engine=engine, sampling="shuffle", **changes)
    found = audited(s, n=40, canaries=40)  # two steps an epoch, each canary is in one of them
    included, weights = found.included, found.weights.reshape(3, 2)
    possible = (weights[0][:, None, None] + weights[1][:, None] + weights[2]).ravel()
    off = np.abs(found.score[included, None] - possible).min(1)
    assert off.max() < 1e-4 and np.abs(found.score[~included]).max() < 1e-4
    assert np.abs(found.noise).max() < 1e-4
    assert 10 < included.sum() < 30 and guess(found.score, included, 20) == 20


@pytest.mark.parametrize(
    "changes", [{}, {"sampling": "shuffle"}, {"sigma": 2.0, "noise": "sigma", "momentum": 0.5}, {"engine": "hooks"}]
)
def test_an_honest_training_shows_no_fault(changes):
    s = PRIVATE.model_copy(update=changes)
    found = audited(s)
    assert min(check.p for check in checks(found)) > 1e-4
    k, m = best_guesses(found), len(found.included)
    if s.sampling == "poisson":
        bound = epsilon_lower(m, k, guess(found.score, found.included, k), 1e-5)
        assert bound < epsilon(s.noise_multiplier, found.rate, len(found.weights), 1e-5)


@pytest.mark.parametrize(
    "changes", [{"clip_function": "automatic", "clip": 1e-3}, {"mislabelled": 100}], ids=["automatic", "mislabelled"]
)
def test_canaries_are_what_the_settings_of_a_run_make_of_them(changes):
    settings = PRIVATE.model_copy(update={"sigma": 1e-3, "sampling": "shuffle", "epochs": 3} | changes)
    found = audited(settings)
    norm = 100 * settings.clip / math.sqrt(2)
    clipped = norm / (norm + 0.01) if settings.clip_function == "automatic" else 1.0
    assert found.score[found.included] == pytest.approx(3 * clipped, rel=0.02)
    assert [check for check in checks(found) if check.name == "gradient"][0].ratio == pytest.approx(1, abs=0.01)


def test_a_bound_that_tells_something():
    found = audited(PRIVATE.model_copy(update={"sigma": 0.5, "batch_size": 6400, "epochs": 10}), n=6400)
    k, m = best_guesses(found), len(found.included)
    assert len(found.weights) == 10 and found.rate == 1  # ten Gaussian mechanisms, mu 6.3
    assert epsilon_lower(m, k, guess(found.score, found.included, k), 1e-5) > 3


def test_the_number_of_guesses_follows_from_the_settings_alone():
    one, other = audited(stream=(0, "a")), audited(stream=(1, "a"))
    assert (one.included != other.included).any() and best_guesses(one) == best_guesses(other) >= 2


def test_the_same_stream_gives_the_same_canaries_and_another_has_noise_of_its_own():
    one, again, other = audited(), audited(), audited(stream=(1, "audit"))
    np.testing.assert_array_equal(one.score, again.score)
    assert abs(np.corrcoef(one.noise, other.noise)[0, 1]) < 5 / math.sqrt(len(one.noise))


def test_only_private_trainings_are_audited():
    for changes in ({"sigma": None}, {"sigma": 0.0}, {"sigma": None, "clip": None}):
        with pytest.raises(ValueError, match="clipping and noise"):
            audited(PRIVATE.model_copy(update=changes))


@pytest.mark.slow
def test_checks_raise_false_alarms_as_often_as_they_say():
    found = [{check.name: check.p for check in checks(audited(stream=(seed, "audit")))} for seed in range(100)]
    for name in found[0]:
        p = [each[name] for each in found]
        if name != "noise shared":  # the largest of several, times their number
            assert stats.kstest(p, "uniform").pvalue > 1e-4, name
        assert np.mean(np.array(p) < 0.05) <= 0.15, name


# Faults planted in the training.


def plant(monkeypatch, noisy=lambda noisy, sums: noisy, step=lambda step: step, divisor=lambda b, drawn: b):
    """Train with other noisy sums, with the noise of another step, or divided by something else than b."""
    add, sampler, update, batches, sizes = Noise.add, Noise.sampler, training._update, training.batches, []

    def measured(*arguments):
        for batch in batches(*arguments):
            sizes.append(len(batch))
            yield batch

    def divided(parameters, sums, velocities, settings, lr):
        b = divisor(settings.batch_size, sizes[-1])
        update(parameters, sums, velocities, settings.model_copy(update={"batch_size": b}), lr)

    monkeypatch.setattr(Noise, "add", lambda self, i, sums: noisy(add(self, i, sums), sums))
    monkeypatch.setattr(Noise, "sampler", lambda self, i: sampler(self, step(i)))
    monkeypatch.setattr(training, "batches", measured)
    monkeypatch.setattr(training, "_update", divided)


def one_parameter_bare(noisy, sums):
    return noisy | {"parts.2.weight": sums["parts.2.weight"]}


def one_stream_for_two_parameters(noisy, sums):
    noise = noisy["parts.0.weight"] - sums["parts.0.weight"]
    return noisy | {"parts.1.weight": sums["parts.1.weight"] + noise}


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        pytest.param({"noisy": one_parameter_bare}, "noise 3", id="one_parameter_bare"),
        pytest.param({"noisy": one_stream_for_two_parameters}, "noise shared", id="one_stream_for_two_parameters"),
        pytest.param({"step": lambda step: 0}, "noise", id="same_noise_each_step"),
        pytest.param({"step": lambda step: step % 100}, "noise", id="same_noise_each_epoch"),
        pytest.param({"divisor": lambda b, drawn: max(1, drawn)}, "noise", id="divided_by_what_was_drawn"),
    ],
)
def test_faults_of_a_step_are_found(fault, found, monkeypatch):
    plant(monkeypatch, **fault)
    assert found in faults()


def test_a_plant_without_a_fault_is_not_found(monkeypatch):
    honest = audited()
    plant(monkeypatch)
    np.testing.assert_array_equal(audited().score, honest.score)
    assert not faults()


def test_secret_noise_shows_no_fault_and_is_never_the_same():
    secret = PRIVATE.model_copy(update={"randomness": "secret"})
    assert not faults(secret)
    one, other = audited(secret).noise, audited(secret).noise
    assert abs(np.corrcoef(one, other)[0, 1]) < 6 / math.sqrt(len(one))


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.8, 2.0])  # 2: sigma instead of sigma C
def test_noise_of_another_size_is_found(factor, monkeypatch):
    right = Training.noise_std.fget
    monkeypatch.setattr(Training, "noise_std", property(lambda self: factor * right(self)))
    assert "noise" in faults(canaries=1000)


def test_missing_clipping_is_found_and_refutes_epsilon(monkeypatch):
    class Unclipped(FunctionalEngine):
        def __call__(self, x, y, clip):
            return super().__call__(x, y, 1e9)

    monkeypatch.setitem(training.ENGINES, "fused", Unclipped)
    strong = PRIVATE.model_copy(update={"sigma": 3.0})
    assert "gradient" in faults(strong)
    found = audited(strong)
    k, m = best_guesses(found), len(found.included)
    lower = epsilon_lower(m, k, guess(found.score, found.included, k), 1e-5)
    assert lower > 3 * epsilon(3.0, found.rate, len(found.weights), 1e-5)


def test_clipping_the_sum_instead_of_each_gradient_is_found(monkeypatch):
    class Summed(FunctionalEngine):
        def __call__(self, x, y, clip):
            sums, norms = super().__call__(x, y, 1e9)
            norm = math.sqrt(sum(value.square().sum().item() for value in sums.values()))
            return {name: value / max(1, norm / clip) for name, value in sums.items()}, norms

    monkeypatch.setitem(training.ENGINES, "fused", Summed)
    # Canaries share the C of a batch: of 400 there are too few in a batch for it to show in every training.
    assert "gradient" in faults(canaries=1000)


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_another_sampling_rate_is_found(rate, monkeypatch):
    def batches(n, settings, random):
        for _ in range(settings.steps_per_epoch(n)):
            yield (torch.rand(n, generator=random) < rate * settings.batch_size / n).nonzero().squeeze(1)

    monkeypatch.setattr(training, "batches", batches)
    assert "gradient" in faults(canaries=1000)


def test_shuffled_batches_called_poisson_are_found(monkeypatch):
    right = training.batches
    shuffled = {"sampling": "shuffle"}
    monkeypatch.setattr(training, "batches", lambda n, s, random: right(n, s.model_copy(update=shuffled), random))
    assert faults(PRIVATE.model_copy(update={"sigma": 0.01})) == {"sampling"}


# The law of the noise and the bound on a gradient, in trainings of a network on images.


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 30), nn.Linear(30, 5)
        )


def images(n):
    random = np.random.default_rng(0)
    return Split(random.integers(0, 256, (n, 1, 8, 8), np.uint8), random.integers(0, 5, n))


def moved(settings, data, stream=("noise",)):
    """The noisy sum of gradients, by parameter, of trainings whose steps add up."""
    net, start = network(), network()
    training.train(net, data, data, settings, stream)
    pairs = zip(net.named_parameters(), start.parameters(), strict=True)
    scale = -settings.batch_size / settings.lr
    return {name: ((p - before) * scale).detach().double().flatten().numpy() for (name, p), before in pairs}


@pytest.mark.parametrize("steps", [1, 20])
def test_each_parameter_of_a_network_gets_gaussian_noise_of_its_own(steps):
    s = Training(epochs=1, batch_size=10, lr=1e-3, sigma=1000.0, clip=0.01, sampling="poisson")
    noise = moved(s, images(10 * steps))  # a gradient is at most 1 / 1000 of the noise on a parameter
    std = 10 * math.sqrt(steps)
    for values in noise.values():
        square = np.square(values / std).sum()
        assert FAULT < stats.chi2.cdf(square, len(values)) < 1 - FAULT
    together = np.concatenate(list(noise.values())) / std
    assert stats.kstest(together, "norm").pvalue > 1e-4
    assert len(np.unique(together)) > 0.99 * len(together)
    other = np.concatenate(list(moved(s, images(10 * steps), ("other",)).values())) / std
    assert abs(together @ other) / len(other) < 5 / math.sqrt(len(other))


def test_a_changed_example_moves_the_sum_by_its_clipped_gradients_and_by_no_more_than_2_c():
    data = images(12)
    changed = images(12)
    changed.images[7], changed.labels[7] = 255 - data.images[7], (data.labels[7] + 1) % 5
    s = Training(epochs=1, batch_size=12, lr=1.0, sigma=0.1, clip=0.3, sampling="poisson")  # one step, all drawn
    ends = [np.concatenate(list(moved(s, split).values())) for split in (data, changed)]

    def clipped(split):
        net = network()
        loss = F.cross_entropy(net(unit(torch.from_numpy(split.images[7:8]))), torch.from_numpy(split.labels[7:8]))
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]).double()
        assert gradient.norm() > 0.3
        return (gradient * 0.3 / gradient.norm()).numpy()

    np.testing.assert_allclose(ends[1] - ends[0], clipped(changed) - clipped(data), atol=2e-6)
    assert np.linalg.norm(ends[1] - ends[0]) <= 0.6 + 1e-5


# The metric.


def record(settings, n=6400):
    about = {"dataset": "mnist", "run": "dpsgd", "seed": "0"}
    return about | {"settings": {"training": settings.plain()}, "mechanism": settings.mechanism(n)}


def given(trained):
    x, index = torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64)
    return Images(x, index, index, index, {}, {}, trained)


def test_the_metric_bounds_epsilon_beside_the_accountant():
    settings = Metric(canaries=100, deltas=[1e-5, 1e-3])
    found = metric.measure(CanaryNet(4), given(record(PRIVATE)), settings)
    by = {(row["metric"], row["delta"]): row for row in found.rows if not math.isnan(row["delta"])}
    m = len(found.arrays["included"])
    assert m == found.rows[0]["n"] >= 100
    told = {row["metric"]: row["value"] for row in found.rows}
    for delta in (1e-5, 1e-3):
        bound = epsilon_lower(m, int(told["guesses"]), int(told["right"]), delta)
        assert by["epsilon_lower", delta]["value"] == bound
        assert by["epsilon", delta]["value"] == epsilon(0.1, 1 / 100, 200, delta)
    assert told["right"] == guess(found.arrays["score"], found.arrays["included"], int(told["guesses"]))
    assert {"noise", "noise 4", "noise shared", "gradient", "sampling"} <= set(told)
    again = metric.measure(CanaryNet(4), given(record(PRIVATE)), settings)
    np.testing.assert_array_equal(found.arrays["score"], again.arrays["score"])


def test_the_metric_refuses_what_cannot_be_audited():
    with pytest.raises(UserError, match="trained elsewhere"):
        metric.measure(CanaryNet(4), given(None), Metric())
    with pytest.raises(UserError, match="not private"):
        metric.measure(CanaryNet(4), given(record(Training(epochs=1))), Metric())
    display = Display(shows="audit", runs=[{"sigma": 1.0, "clip": 1.0}])
    check(display, runs({"sigma": 1.0, "clip": 1.0}), {})
    for entry in ("sgd", {"algorithm": "sgd", "clip": 1.0}, {"weights": "w.pt", "name": "w"}):
        with pytest.raises(Exception, match="audit DP-SGD runs only"):
            check(display, runs(entry), {})


# The table.


def rows_of(run, seed, lower=0.3, p=0.2):
    about = {"dataset": "mnist", "run": run, "seed": seed, "n": 1171, "delta": math.nan, "p": math.nan}
    at = about | {"delta": 1e-5}
    rows = [
        about | {"metric": "guesses", "value": 234.0},
        about | {"metric": "right", "value": 140.0 + seed},
        at | {"metric": "epsilon_lower", "value": lower + seed / 10},
        at | {"metric": "epsilon", "value": 1.5},
    ]
    checks = {"noise": 1.0, "noise 1": 0.97 + seed / 100, "noise 2": 1.02, "gradient": 0.9}
    return rows + [about | {"metric": name, "value": value, "p": p} for name, value in checks.items()]


def test_the_table_shows_bounds_beside_the_accountant_and_names_faults():
    entries = [{"sigma": [1.3, 0.7], "clip": 1.0}]
    good, bad = runs(*entries)
    made = [*rows_of(good.name, 0), *rows_of(good.name, 1), *rows_of(bad.name, 0, 1.6, 1e-9)]
    made += rows_of("another", 0)
    given = Given(runs=(good, bad), records={"audit": pd.DataFrame(made)})
    data, table = show(given, Display(shows="audit", runs=entries))
    assert len(data) == len(made) - 8 and set(data["run"]) == {good.name, bad.name}
    first, second = table.to_dict("records")
    assert first["canaries"] == "1171" and first["guesses right"] == "140 of 234, 141 of 234"
    assert first["ε ≥, 95 %, δ = 1e-05"] == "0.30 to 0.40" and first["ε accounted, δ = 1e-05"] == "1.50"
    assert first["noise / stated"] == "0.97 to 1.02" and first["gradients / stated"] == "0.90"
    assert first["smallest p"] == "0.2" and first["fault"] == "none found"
    assert second["fault"] == "ε at δ = 1e-05, noise, noise 1, noise 2, gradient"
