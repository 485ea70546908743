"""Models that mix the examples of a batch are refused, and others are not."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from dprobust import probing
from dprobust.engines import ENGINES, clipped_gradient_sum

CLASSES = 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:clipping falls back"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]


class Apply(nn.Module):
    """A function of the batch as a layer; in training mode only, if asked."""

    def __init__(self, function, only_training=False):
        super().__init__()
        self.function, self.only_training = function, only_training

    def forward(self, x):
        return x if self.only_training and not self.training else self.function(x)


def without_gradient(function):
    def apply(x):
        with torch.no_grad():
            statistics = function(x)
        return x - statistics

    return apply


def rolled_if_ordered(x):
    """Sorted by the first feature."""
    return x[x[:, 0].argsort()]


MIXED = {
    "mean": lambda x: x - x.mean(0),
    "mean without gradient": without_gradient(lambda x: x.mean(0)),
    "largest pixel": lambda x: x / x.detach().abs().max(),
    "deviation without gradient": lambda x: x / (1 + x.detach().std(0, correction=0)),
    "rows sorted": rolled_if_ordered,
    "rows reversed": lambda x: x.flip(0),
    "neighbour": lambda x: x + 1e-3 * x.roll(1, 0),
    "size of the batch": lambda x: x / len(x),
    "first row": lambda x: x - 1e-4 * x[:1],
    "rank among the others": lambda x: x + x[:, :1].argsort(0).argsort(0),
}


def network(layer, head=True):
    torch.manual_seed(0)
    layers = [layer, nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)] if head else [layer, nn.Linear(4, CLASSES)]
    return nn.Sequential(*layers)


def batch(n=6):
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, 4, generator=generator)
    x[:2, 0] = torch.tensor([0.1, 0.2])  # the first two are in order
    return x, torch.randint(CLASSES, (n,), generator=generator)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MIXED)
def test_mixing_is_an_error(name, engine):
    model, (x, y) = network(Apply(MIXED[name])), batch()
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"^the model mixes the examples of a batch \(in training mode\).*take out"
        ):
            ENGINES[engine](model)(x, y, 1.0)


@pytest.mark.parametrize("name", MIXED)
def test_mixing_behind_a_head_of_zeros_is_an_error(name):
    model, (x, y) = network(Apply(MIXED[name])), batch()
    nn.init.zeros_(model[-1].weight)
    with pytest.raises(ValueError, match="mixes the examples"):
        clipped_gradient_sum(model, x, y, 1.0)


@pytest.mark.parametrize("name", MIXED)
def test_mixing_in_one_mode_is_an_error_there(name):
    model, (x, y) = network(Apply(MIXED[name], only_training=True)), batch()
    for _ in range(2):
        clipped_gradient_sum(model.eval(), x, y, 1.0)
        with pytest.raises(ValueError, match="mixes the examples"):
            clipped_gradient_sum(model.train(), x, y, 1.0)
    model.eval()[0].train()
    with pytest.raises(ValueError, match="mixes the examples"):
        clipped_gradient_sum(model, x, y, 1.0)


@pytest.mark.parametrize("name", MIXED)
def test_mixing_beside_a_layer_without_a_rule_is_an_error(name):
    model, (x, y) = network(nn.Sequential(Apply(MIXED[name]), nn.PReLU())), batch()
    with pytest.raises(ValueError, match="mixes the examples"):
        clipped_gradient_sum(model, x, y, 1.0)


def test_mixing_after_a_change_of_the_model_is_an_error():
    model, (x, y) = network(nn.Identity()), batch()
    clipped_gradient_sum(model, x, y, 1.0)
    model[0] = Apply(MIXED["mean"])
    with pytest.raises(ValueError, match="mixes the examples"):
        clipped_gradient_sum(model, x, y, 1.0)


def test_mixing_of_one_example_alone_is_an_error():
    model, (x, y) = network(Apply(MIXED["mean"])), batch()
    with pytest.raises(ValueError, match="mixes the examples"):
        clipped_gradient_sum(model, x[:1], y[:1], 1.0)


class Words(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.embedding, self.head, self.mix = nn.Embedding(9, 4), nn.Linear(4, CLASSES), mix

    def forward(self, x):
        return self.head(self.mix(self.embedding(x).mean(1)))


def test_words_that_mix():
    model, x, y = Words(MIXED["mean"]), torch.tensor([[0, 1], [2, 3], [8, 8]]), torch.tensor([0, 1, 2])
    clipped_gradient_sum(model, x[:1], y[:1], 1.0)  # there is no other sentence to put beside it
    with pytest.raises(ValueError, match="mixes the examples"):
        clipped_gradient_sum(model, x, y, 1.0)
    clipped_gradient_sum(Words(nn.Identity()), x, y, 1.0)


class SortedInside(nn.Module):
    """Rows are ordered for a layer, as recurrent networks have them by length, and then put back."""

    def __init__(self, key):
        super().__init__()
        self.body, self.head, self.key = nn.Linear(4, 4), nn.Linear(4, CLASSES), key

    def forward(self, x):
        order = self.key(x).argsort()
        return self.head(self.body(x[order]).tanh()[order.argsort()])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("lengths", [[1, 2, 3, 4, 2, 3], [1, 1, 2, 3, 3, 4], [4, 4, 4, 4, 4, 4]], ids=str)
@pytest.mark.parametrize(
    "key",
    [lambda x: x[:, 0], lambda x: -x[:, 0], lambda x: (x > 0).sum(1), lambda x: -(x > 0).sum(1)],
    ids=["first", "first, falling", "length", "length, falling"],
)
def test_rows_of_another_order_inside_are_clipped_one_by_one(key, lengths, zeros):
    torch.manual_seed(0)
    model, (x, y) = SortedInside(key), batch()
    if zeros:
        nn.init.zeros_(model.head.weight)
    x = x * (torch.arange(4) < torch.tensor(lengths)[:, None])
    if len(set(key(x).tolist())) == 1:
        pytest.skip("nothing is out of order")
    with pytest.warns(UserWarning, match=r"row i of body \(Linear\) does not belong to example i"):
        sums, norms = clipped_gradient_sum(model, x, y, 0.1)
    expected, each = ENGINES["functional"](model)(x, y, 0.1)
    torch.testing.assert_close(norms, each)
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value)


class LayerDrop(nn.Module):
    """The whole batch skips a layer, by a stream of Python's or of numpy's."""

    def __init__(self, draw):
        super().__init__()
        self.layer, self.draw = nn.Linear(4, 4), draw

    def forward(self, x):
        return x + self.layer(x) if self.draw() < 0.5 else x


class StochasticDepth(nn.Module):
    def forward(self, x):
        return x * torch.empty(len(x), 1).bernoulli_(0.5)


class Squeezed(nn.Module):
    def forward(self, x):
        (_, _) = x.squeeze().shape  # fails for a batch of one
        return x


def statistics_in_eval():
    norm = nn.BatchNorm1d(4).eval()
    norm.running_mean.fill_(0.3)
    return norm


FINE = {
    "batch norm in evaluation": statistics_in_eval,
    "dropout": lambda: nn.Dropout(0.5),
    "stochastic depth": StochasticDepth,
    "layer drop, random": lambda: LayerDrop(random.random),
    "layer drop, numpy": lambda: LayerDrop(np.random.rand),
    "layer drop, torch": lambda: LayerDrop(lambda: torch.rand(()).item()),
    "noise": lambda: Apply(lambda x: x + torch.randn_like(x)),
    "in place": lambda: Apply(lambda x: x.mul_(2)),
    "no batch of one": Squeezed,
    "float32 only": lambda: Apply(
        lambda x: x + torch.ones(4) @ torch.ones(4, 4) if x.dtype == torch.float32 else 1 / 0
    ),
    "positive only": lambda: Apply(lambda x: x.log() if (x > 0).all() else 1 / 0),
    "constant": lambda: Apply(torch.zeros_like),
    "softmax": lambda: nn.Softmax(1),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "huge": lambda: Apply(lambda x: 1e30 * x),
}


@pytest.mark.parametrize("engine", ["fused", "functional"])
@pytest.mark.parametrize("name", FINE)
def test_what_keeps_examples_apart_is_accepted(name, engine):
    if (name, engine) == ("no batch of one", "functional"):
        pytest.skip("which is all that this engine passes through a model")
    model, (x, y) = network(FINE[name](), head=False), batch()
    streams = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    values = {key: value.clone() for key, value in model.state_dict().items()}
    assert probing.changed_buffers(model, x) == frozenset()
    assert streams[:2] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(streams[2], torch.get_rng_state())
    _, norms = ENGINES[engine](model)(x, y, 1.0)
    assert norms.isfinite().all()
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("n", [1, 2, 3, 300])
def test_batches_of_any_size_are_accepted(n):
    model = network(nn.Identity())
    clipped_gradient_sum(model, *batch(n), 1.0) if n > 1 else clipped_gradient_sum(
        model, *(t[:1] for t in batch(2)), 1.0
    )


def test_the_probe_runs_once_a_mode():
    passes = []
    model, (x, y) = network(Apply(lambda x: passes.append(len(x)) or x)), batch()
    counts = []
    for training in (True, True, False, False, True):
        passes.clear()
        clipped_gradient_sum(model.train(training), x, y, 1.0)
        counts.append(len(passes))
    assert counts[1] == counts[3] == counts[4] == 1
    assert 1 < counts[0] == counts[2] <= 60


class Counting(nn.Module):
    """Notes kept from pass to pass: in a buffer, or where no one sees them."""

    def __init__(self, buffer, of_examples, renewed=False):
        super().__init__()
        self.buffer, self.of_examples, self.renewed, self.passes = buffer, of_examples, renewed, 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        step = x.detach().mean() if self.of_examples else 1.0
        if not self.buffer:
            self.passes += 1
            return x + self.passes
        if self.renewed:
            self.seen = self.seen + step
        else:
            self.seen += step
        return x


@pytest.mark.parametrize("renewed", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_buffers_that_every_pass_changes_are_put_back(engine, renewed):
    model, (x, y) = network(Counting(True, False, renewed)), batch()
    seen = model[0].seen
    ENGINES[engine](model)(x, y, 1.0)
    assert model[0].seen is seen and seen == 0


@pytest.mark.parametrize("renewed", [True, False])
def test_buffers_that_depend_on_the_examples_are_an_error(renewed):
    model, (x, y) = network(Counting(True, True, renewed)), batch()
    with pytest.raises(ValueError, match=r"^a pass writes what it computes from the examples into the buffer 0.seen"):
        clipped_gradient_sum(model, x, y, 1.0)
    assert model[0].seen == 0


def test_notes_outside_of_buffers_are_an_error():
    model, (x, y) = network(Counting(False, False)), batch()
    with pytest.raises(ValueError, match=r"^two equal passes of the model give different outputs: let it draw"):
        clipped_gradient_sum(model, x, y, 1.0)


@pytest.mark.parametrize("frozen", [True, False])
def test_spectral_norm_keeps_its_vectors(frozen):
    torch.manual_seed(0)
    model, (x, y) = network(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))), batch()
    model[0].requires_grad_(not frozen)
    before = {name: value.clone() for name, value in model.named_buffers()}
    clipped_gradient_sum(model.train(), x, y, 1.0)
    assert len(before) == 2
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
