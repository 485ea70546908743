"""Private training by calls: against plain optimizers, Opacus, torch.func, dp-accounting, and against misuse."""

import copy
import math

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from scipy import stats
from torch import nn
from torch.nn import functional as F

from dprobust.dpsgd import ENGINES, PrivateTraining, clipped_gradient_sum
from dprobust.errors import UserError

N, B = 60, 12
SAMPLERS = ["poisson", "truncated_poisson", "balls_in_bins", "shuffle"]
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.fixture(scope="module")
def data():
    random = torch.Generator().manual_seed(1)
    return torch.rand(N, 1, 8, 8, generator=random), torch.randint(5, (N,), generator=random)


def private(model, optimizer="sgd", **changes):
    settings = {"examples": N, "batch_size": B, "epochs": 2, "clip": 1.0, "sigma": 1.0, "seed": 7} | changes
    return PrivateTraining(model, OPTIMIZERS[optimizer](model.parameters()), **settings)


def trained(training, data):
    for batch in training:
        training.step(data[0][batch], data[1][batch])
    return list(training.model.parameters())


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# What a step is.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_noise_and_clipping_it_is_the_plain_optimizer(name, data):
    model, plain = network(), network()
    training, optimizer = private(model, name, sigma=0.0, clip=1e6), OPTIMIZERS[name](plain.parameters())
    for batch in training:
        x, y = data[0][batch], data[1][batch]
        training.step(x, y)
        optimizer.zero_grad()
        (F.cross_entropy(plain(x), y, reduction="sum") / B).backward()
        optimizer.step()
    assert training.steps == 2 * (N // B) == 10 and len(training) == 0
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class Kept(torch.optim.Optimizer):
    """Keeps gradients instead of using them."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.kept = []

    def step(self):
        self.kept.append([p.grad.clone() for group in self.param_groups for p in group["params"]])


def test_gradients_are_the_clipped_sum_plus_the_noise_that_is_told(data):
    model = network()
    optimizer = Kept(model.parameters())
    training = PrivateTraining(
        model, optimizer, examples=N, batch_size=B, epochs=6, clip=0.5, sigma=1.5, seed=3, clip_function="automatic"
    )
    drawn = []
    for i, batch in enumerate(training):
        training.step(data[0][batch], data[1][batch])
        sums, norms = clipped_gradient_sum(model, data[0][batch], data[1][batch], 0.5, "automatic")
        assert all(p.grad is None for p in model.parameters()) and (norms > 0.5).any()
        drawn += [(B * g - s).flatten() / 0.75 for g, s in zip(optimizer.kept[i], sums.values(), strict=True)]
    noise = torch.cat(drawn).double().numpy()
    assert len(noise) == 30 * sum(p.numel() for p in model.parameters())
    assert stats.kstest(noise, "norm").pvalue > 1e-3 and abs(noise.std() - 1) < 5 / math.sqrt(2 * len(noise))


def test_the_divisor_is_the_expected_size_and_empty_batches_are_noisy():
    model = network()
    optimizer = Kept(model.parameters())
    training = PrivateTraining(model, optimizer, examples=40, batch_size=1, epochs=1, clip=1.0, sigma=2.0, seed=0)
    sizes = []
    for batch in training:
        sizes.append(len(batch))
        training.step(torch.zeros(len(batch), 1, 8, 8), torch.zeros(len(batch)).long())
    empty = [torch.cat([g.flatten() for g in kept]) for kept, n in zip(optimizer.kept, sizes, strict=True) if n == 0]
    assert len(empty) > 5 and max(sizes) > 1
    assert torch.stack(empty).std().item() == pytest.approx(2.0, rel=0.05)


def squared(outputs, targets):
    return (outputs - targets).square().sum(1)


@pytest.mark.parametrize("engine", ENGINES)
def test_any_loss_of_an_example(engine, data):
    """Against gradients of each example by autograd alone."""
    model, (x, targets) = network().double(), (data[0].double(), torch.randn(N, 5, dtype=torch.float64))
    each = []
    for i in range(N):
        grads = torch.autograd.grad(squared(model(x[i : i + 1]), targets[i : i + 1]).sum(), list(model.parameters()))
        each.append(torch.cat([g.flatten() for g in grads]))
    norms = torch.stack(each).norm(dim=1)
    clip = norms.median().item()
    expected = (torch.stack(each) * (clip / norms).clamp(max=1)[:, None]).sum(0)
    near = 1e-6
    if engine == "bfloat16":  # which takes float32, and 8 bits of it
        model, x, targets, near = model.float(), x.float(), targets.float(), 0.02
    sums, found = ENGINES[engine](model, loss=squared)(x, targets, clip)
    torch.testing.assert_close(found.double(), norms, rtol=near, atol=0)
    total = torch.cat([s.flatten() for s in sums.values()]).double()
    assert (total - expected).norm() <= near * expected.norm()


def test_soft_targets_train(data):
    def soft(logits, targets):
        return -(targets * F.log_softmax(logits, 1)).sum(1)

    hard, smooth = network(), network()
    one = trained(private(hard), data)
    # The same stream but for the loss, which is no part of the model or of the settings.
    two = trained(private(smooth, loss=soft), (data[0], F.one_hot(data[1], 5).float()))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_wrong_losses_are_refused(data):
    for loss, message in (
        (lambda z, y: F.cross_entropy(z, y), "the loss must return one value an example"),
        (lambda z, y: F.cross_entropy(z, y, reduction="none") / z.std(), "depends on the others of the batch"),
    ):
        with pytest.raises(ValueError, match=message):
            trained(private(network(), loss=loss), data)


# Batches.


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_epochs_of_every_sampler(sampling, data):
    training = private(network(), sampling=sampling, epochs=3)
    drawn = []
    for batch in training:
        drawn.append(batch)
        training.step(data[0][batch], data[1][batch])
    assert len(drawn) == 15
    if sampling in ("shuffle", "balls_in_bins"):
        for epoch in range(3):
            assert torch.cat(drawn[5 * epoch : 5 * epoch + 5]).sort().values.tolist() == list(range(N))
    assert not all(torch.equal(a, b) for a, b in zip(drawn[:5], drawn[5:10], strict=True))


@pytest.mark.parametrize("pieces", ["at_once", "list"])
def test_virtual_batches(pieces, data):
    whole = trained(private(network()), data)
    if pieces == "at_once":
        parts = trained(private(network(), at_once=5), data)
    else:
        training = private(network())
        for batch in training:
            training.step([data[0][p] for p in batch.split(5)], [data[1][p] for p in batch.split(5)])
        parts = list(training.model.parameters())
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# Privacy.


def test_epsilon_so_far_is_dp_accountings(data):
    training = private(network(), epochs=3, sigma=1.2)
    assert training.epsilon(1e-5) == 0
    found = []
    for batch in training:
        training.step(data[0][batch], data[1][batch])
        found.append(training.epsilon(1e-5))
    for steps in (1, 7, 15):
        event = dp_accounting.PoissonSampledDpEvent(B / N, dp_accounting.GaussianDpEvent(1.2))
        exact = PLDAccountant().compose(event, steps).get_epsilon(1e-5)
        assert exact - 1e-9 <= found[steps - 1] <= 1.01 * exact
    assert found == sorted(found)
    assert training.epsilon(1e-5, "replace one") > found[-1]
    with pytest.raises(ValueError, match="adjacency must be one of add or remove one, replace one, not 'zero out one'"):
        training.epsilon(1e-5, "zero out one")


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_noise_for_an_epsilon(sampling, data):
    training = private(network(), sampling=sampling, sigma=None, epsilon=3.0, delta=1e-4)
    trained(training, data)
    assert 2.9 < training.epsilon(1e-4) <= 3.0 and training.sigma > 0.5


def test_without_noise_nothing_is_private(data):
    training = private(network(), sigma=0.0)
    trained(training, data)
    assert training.epsilon(1e-5) == math.inf


def test_trainings_that_differ_share_no_noise(data):
    def noise(**changes):
        model = network(changes.pop("init", 0))
        optimizer = Kept(model.parameters())
        training = PrivateTraining(
            model,
            optimizer,
            **({"examples": N, "batch_size": B, "epochs": 1, "clip": 1e-6, "sigma": 1.0, "seed": 0} | changes),
        )
        trained(training, data)
        return torch.cat([g.flatten() for kept in optimizer.kept for g in kept]).numpy() * 1e6

    base = noise()
    assert np.corrcoef(base, noise())[0, 1] > 0.999
    for changes in ({"seed": 1}, {"sigma": 1.01}, {"init": 1}, {"sampling": "shuffle"}, {"seed": None}):
        assert abs(np.corrcoef(base, noise(**changes))[0, 1]) < 0.1, changes
    assert abs(np.corrcoef(noise(seed=None), noise(seed=None))[0, 1]) < 0.1


# Misuse.


def test_batches_are_used_once_and_all(data):
    training = private(network(), "adam")
    with pytest.raises(RuntimeError, match="there is no batch to make a step on"):
        training.step(*data)
    loop = iter(training)
    batch = next(loop)
    for wrong in (data[0], data[0][batch][1:]):
        with pytest.raises(ValueError, match=rf"the batch has {len(batch)} examples, not {len(wrong)}"):
            training.step(wrong, data[1][: len(wrong)])
    with pytest.raises(RuntimeError, match="the last batch was not used"):
        training.state_dict()
    training.step(data[0][batch], data[1][batch])
    with pytest.raises(RuntimeError, match="there is no batch"):
        training.step(data[0][batch], data[1][batch])
    next(loop)
    with pytest.raises(RuntimeError, match="the last batch was not used"):
        next(loop)
    with pytest.raises(RuntimeError, match="the last batch was not used"):
        next(iter(training))


@pytest.mark.parametrize("seed", [None, 7], ids=["secret", "seed"])
def test_two_loops_share_the_batches_of_an_epoch(seed, data):
    training = private(network(), sampling="balls_in_bins", epochs=1, seed=seed)
    first, drawn = iter(training), []
    for loop in (first, second := iter(training)):
        drawn.append(next(loop))
        training.step(data[0][drawn[-1]], data[1][drawn[-1]])
    with pytest.raises(RuntimeError, match="another loop over this training has begun"):
        next(first)
    for batch in second:
        drawn.append(batch)
        training.step(data[0][batch], data[1][batch])
    assert training.steps == N // B
    assert torch.cat(drawn).sort().values.equal(torch.arange(N))  # each example once


def test_a_step_in_evaluation_mode_is_refused(data):
    training = private(network())
    batch = next(iter(training))
    training.model.eval()
    with pytest.raises(RuntimeError, match="the model is in evaluation mode"):
        training.step(data[0][batch], data[1][batch])
    training.model.train()
    training.step(data[0][batch], data[1][batch])  # the batch was not lost
    assert training.steps == 1


def test_a_step_that_failed_can_be_made_again(data):
    training, calm = private(network()), private(network())
    engine = training._engine

    def short(*arguments):
        training._engine = engine
        raise torch.OutOfMemoryError("out of memory")

    training._engine = short
    batch = next(iter(training))
    with pytest.raises(torch.OutOfMemoryError):
        training.step(data[0][batch], data[1][batch])
    training.step(data[0][batch], data[1][batch])
    batch = next(iter(calm))
    calm.step(data[0][batch], data[1][batch])
    assert training.steps == 1 and equal(training.model.parameters(), calm.model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 1.0, "delta": 1e-5}, "sigma or epsilon, and not both"),
        ({"sigma": None}, "sigma or epsilon, and not both"),
        ({"sigma": None, "epsilon": 1.0}, "epsilon needs delta and clip"),
        ({"batch_size": N + 1}, "batch_size: 61 must be from 1 to the number of examples, 60"),
        ({"clip": -1.0}, "clip: "),
        ({"sampling": "sorted"}, "sampling: "),
        ({"clip_function": "flat"}, "clip_function: "),
        ({"engine": "slow"}, "engine: "),
        ({"at_once": 0}, "at_once: 0 must be at least 1"),
        ({"sigma": math.nan}, "sigma: "),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(UserError, match=message):
        private(network(), **changes)


def test_wrong_optimizers():
    model = network()
    settings = {"examples": N, "batch_size": B, "epochs": 1, "clip": 1.0, "sigma": 1.0}
    for parameters in (model[0].parameters(), [*model.parameters(), nn.Parameter(torch.zeros(1))]):
        with pytest.raises(ValueError, match="must have all parameters of the model that require a gradient"):
            PrivateTraining(model, torch.optim.SGD(parameters, lr=0.1), **settings)
    with pytest.raises(ValueError, match="LBFGS computes gradients by itself"):
        PrivateTraining(model, torch.optim.LBFGS(model.parameters()), **settings)
    model[0].requires_grad_(False)
    training = PrivateTraining(model, torch.optim.SGD(model[3].parameters(), lr=0.1), **settings)
    batch = next(iter(training))
    model[0].requires_grad_(True)
    with pytest.raises(ValueError, match="other parameters require a gradient"):
        training.step(torch.zeros(len(batch), 1, 8, 8), torch.zeros(len(batch)).long())


def test_batch_normalisation_is_refused(data):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5))
    training = PrivateTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), examples=N, batch_size=B, epochs=1, clip=1.0, sigma=1.0
    )
    with pytest.raises(ValueError, match="normalises by statistics of the batch: use GroupNorm"):
        trained(training, data)


# Going on.


@pytest.mark.parametrize("sampling", SAMPLERS)
@pytest.mark.parametrize("after", [0, 3, 5, 8])
def test_resumed_it_ends_with_the_same_bytes(sampling, after, data):
    def state(training):
        return copy.deepcopy([training.model.state_dict(), training.optimizer.state_dict(), training.state_dict()])

    whole = trained(private(network(), "adam", sampling=sampling), data)
    first = private(network(), "adam", sampling=sampling)
    if after:
        for batch in first:
            first.step(data[0][batch], data[1][batch])
            if first.steps == after:
                break
    model, optimizer, saved = state(first)
    second = private(network(), "adam", sampling=sampling)
    second.model.load_state_dict(model)
    second.optimizer.load_state_dict(optimizer)
    second.load_state_dict(saved)
    assert len(second) == 10 - after and equal(trained(second, data), whole)
    assert equal(trained(first, data), whole)  # after a break the loop goes on, too


def test_states_of_secret_trainings_hold_no_randomness(data):
    training = private(network(), seed=None)
    batch = next(iter(training))
    training.step(data[0][batch], data[1][batch])
    state = training.state_dict()
    assert set(state) == {"steps", "settings", "examples"}
    again = private(network(), seed=None)
    again.load_state_dict(state)
    trained(again, data)
    assert again.steps == 10
    for sampling in ("balls_in_bins", "shuffle"):
        training = private(network(), seed=None, sampling=sampling)
        for batch in training:
            training.step(data[0][batch], data[1][batch])
            if training.steps in (3, 5):
                again = private(network(), seed=None, sampling=sampling)
                if training.steps == 5:
                    again.load_state_dict(training.state_dict())
                else:
                    with pytest.raises(ValueError, match="the state lies within an epoch"):
                        again.load_state_dict(training.state_dict())


def test_states_of_others_are_refused(data):
    state = private(network()).state_dict()
    for changes in ({"sigma": 2.0}, {"seed": None}, {"examples": N + 1}):
        with pytest.raises(ValueError, match="the state is of a training with other settings"):
            private(network(), **changes).load_state_dict(state)
    begun = private(network())
    batch = next(iter(begun))
    begun.step(data[0][batch], data[1][batch])
    with pytest.raises(ValueError, match="has made steps"):
        begun.load_state_dict(state)
