"""Per-example clipping against one backward pass an example, torch.func and Opacus."""

import copy
import gc
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dprobust import gradients as rules
from dprobust.engines import ENGINES, FusedEngine, clipped_gradient_sum

CLASSES = 5
EXACT = [name for name in ENGINES if name != "bfloat16"]
"""Those whose gradients are the exact ones up to round-off, in float64 too."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]


def oracle(model, x, y, clip):
    """Algorithm 1 word by word: one backward pass an example."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    norms = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        norms.append(torch.stack([g.norm() for g in gradients if g is not None]).norm())
        for name, g in zip(parameters, gradients, strict=True):
            if g is not None:
                sums[name] += g / max(1.0, norms[-1].item() / clip)
    return sums, torch.stack(norms)


def assert_equal(found, expected, tolerance):
    (sums, norms), (expected_sums, expected_norms) = found, expected
    assert list(sums) == list(expected_sums)
    torch.testing.assert_close(norms.double(), expected_norms.double(), rtol=tolerance, atol=0)
    for name, expected_sum in expected_sums.items():
        error = (sums[name].double() - expected_sum.double()).norm()
        assert error <= tolerance * expected_sum.double().norm(), (name, error.item())
        assert sums[name].shape == expected_sum.shape
        assert not sums[name].requires_grad


def image_batch(n, channels=4, size=9, dims=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, channels, *[size] * dims, generator=generator, dtype=dtype)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def conv_net(conv, **batch):
    x, _ = image_batch(1, **batch)
    features = conv.double()(x).flatten(1).shape[1]
    return nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(features, CLASSES))


class Shared(nn.Module):
    """A convolution and a linear layer that are both used twice, and a branch off the input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 1, bias=False)
        self.linear = nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = torch.relu(self.conv(torch.relu(self.conv(x)))) + self.branch(x)
        return self.head(self.linear(torch.tanh(self.linear(x.mean((2, 3))))))


class Tied(nn.Module):
    """Convolutions of different strides and linear layers that share weights, but not biases."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2, padding=2)
        self.b.weight = self.a.weight
        self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 4)
        self.d.weight = self.c.weight
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.a(x).tanh().mean((2, 3)) + self.b(x).tanh().mean((2, 3))
        return self.head(self.d(self.c(x).tanh()))


class InPlace(nn.Module):
    """Outputs of layers are overwritten, by a module and by a function, and only then used twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True)
        self.linear, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.relu(self.conv(x)).amax((2, 3))
        x = F.relu(self.linear(x), inplace=True) + x
        return self.head(x * x)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.dropped = nn.Linear(4, CLASSES), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        x = x.mean((2, 3))
        self.dropped(x)
        return self.used(x)


class Views(nn.Module):
    """Views that only contiguous tensors allow."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(4, 3, 3), nn.Linear(3 * 49, CLASSES)

    def forward(self, x):
        return self.head(self.conv(x).view(len(x), -1))


class Tokens(nn.Module):
    """Images as sequences of 81 tokens of width 4."""

    def __init__(self, positions=81, width=12, windows=()):
        super().__init__()
        self.positions, self.windows = positions, windows
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 3, bias=False)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        x = x.flatten(2).mT[:, : self.positions]
        x = self.down(self.up(x).tanh().unflatten(1, (*self.windows, -1))).flatten(1, -2)
        return self.head(self.norm(x).square().mean(1))


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.group, self.instance = nn.GroupNorm(3, 6), nn.InstanceNorm2d(6, affine=True)
        self.layer, self.linear = nn.LayerNorm([6, 7, 7]), nn.Linear(6, 8)
        self.late, self.rms = nn.GroupNorm(2, 8), nn.RMSNorm(8)
        self.head = nn.Linear(8, CLASSES)
        for module in (self.group, self.instance, self.layer, self.late, self.rms):
            for p in module.parameters():
                nn.init.normal_(p)

    def forward(self, x):
        x = self.layer(self.instance(self.group(self.conv(x)).tanh()).tanh())
        return self.head(self.rms(self.late(self.linear(x.square().mean((2, 3))))))


class Words(nn.Module):
    def __init__(self, words=7, **kwargs):
        super().__init__()
        self.embedding = nn.Embedding(words, 4, **kwargs)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        first, second = self.embedding(x), self.embedding(x[:, :2])
        return self.head(first.tanh().mean(1) + second.square().sum(1))


def frozen():
    model = conv_net(nn.Conv2d(4, 3, 3))
    model[0].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    return model


def pooled():
    """ReLU before max-pooling, with ties in most windows."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Sequential(nn.Conv2d(6, 6, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


CONVS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "padding": lambda: nn.Conv2d(4, 6, 3, padding=2, bias=False),
    "stride": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0)),
    "dilation": lambda: nn.Conv2d(4, 6, 3, dilation=2, stride=2),
    "groups": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "same": lambda: nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)),
    "valid": lambda: nn.Conv2d(4, 6, 3, padding="valid"),
    "circular": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "reflect": lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"),
    "few positions": lambda: nn.Conv2d(4, 64, 8, groups=2),
    "one position": lambda: nn.Conv2d(4, 6, 9),
    "few positions, padded": lambda: nn.Conv2d(4, 64, 10, padding=1, padding_mode="replicate"),
}
MODELS = {
    **{f"conv {name}": lambda conv=conv: conv_net(conv()) for name, conv in CONVS.items()},
    "shared": Shared,
    "tied": Tied,
    "in place": InPlace,
    "unused": Unused,
    "views": Views,
    "tokens": Tokens,
    "few tokens": lambda: Tokens(2),
    "wide tokens": lambda: Tokens(6, 200),
    "windows of tokens": lambda: Tokens(windows=(3, 9)),
    "norms": Norms,
    "frozen": frozen,
    "pooled": pooled,
}


def build(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", MODELS)
def test_fused_is_exact_in_float64(name, n):
    model, (x, y) = build(name), image_batch(n)
    norms = oracle(model, x, y, 1.0)[1]
    for clip in (norms.min().item() / 1e3, norms.median().item(), norms.max().item() * 1e3):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "clipping falls back")
            assert_equal(clipped_gradient_sum(model, x, y, clip), oracle(model, x, y, clip), 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_fused_is_exact_in_float32(name):
    model, (x, y) = build(name), image_batch(7)
    clip = oracle(model, x, y, 1.0)[1].median().item()
    found = clipped_gradient_sum(copy.deepcopy(model).float(), x.float(), y, clip)
    assert found[1].dtype == torch.float32
    assert_equal(found, oracle(model, x, y, clip), 1e-5)


@pytest.mark.parametrize(("cost", "chunk"), [(0, 2000), (1e9, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_explicit_products_ghost_norms_and_chunks_agree(name, cost, chunk, monkeypatch):
    model, (x, y) = build(name), image_batch(5)
    expected = oracle(model, x, y, 1.0)
    monkeypatch.setattr(rules, "ELEMENT_COST", cost)
    monkeypatch.setattr(rules, "CPU_CHUNK", chunk)
    assert_equal(clipped_gradient_sum(model, x, y, 1.0), expected, 1e-9)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"stride": 2, "padding": 1, "groups": 2}], ids=str)
def test_convolutions_in_one_and_three_dimensions(dims, options):
    torch.manual_seed(0)
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims](4, 6, 3, **options)
    model, (x, y) = conv_net(conv, dims=dims, size=5).double(), image_batch(3, dims=dims, size=5)
    assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}], ids=str)
def test_embeddings(options):
    torch.manual_seed(0)
    model = Words(**options).double()
    x, y = torch.tensor([[0, 1, 1, 6], [2, 2, 2, 2], [1, 1, 1, 1]]), torch.tensor([0, 1, 2])
    assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("padding", (0, 1)),
        ("padding", 2),
        ("padding", "valid"),
        ("stride", 2),
        ("dilation", (1, 2)),
        ("padding", "same"),
    ],
)
def test_settings_of_a_convolution_may_change(engine, attribute, value):
    """The layer has two copies of its padding, and uses the one that changes."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (4, 3), padding=(1, 0))
    model = nn.Sequential(conv, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES)).double()
    x, y = image_batch(5)
    run = ENGINES[engine](model)
    run(x, y, 0.5)
    setattr(conv, attribute, value)
    assert_equal(run(x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


def test_padding_of_another_mode_is_the_one_that_the_layer_uses():
    torch.manual_seed(0)
    model, (x, y) = conv_net(nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect")).double(), image_batch(5)
    model[0].padding = (0, 0)
    assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


def test_a_padding_index_from_the_end():
    torch.manual_seed(0)
    model = Words().double()
    model.embedding.padding_idx = -1
    x, y = torch.tensor([[0, 6, 1, 6], [6, 6, 6, 6]]), torch.tensor([0, 1])
    assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


class Pooled(nn.Module):
    """Tokens, of which there may be none, beside a vector that is always there."""

    def __init__(self, words):
        super().__init__()
        self.token = nn.Embedding(7, 4) if words else nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.token(x).sum(1).tanh())


@pytest.mark.parametrize("engine", ["fused", "functional"])
@pytest.mark.parametrize("words", [True, False])
def test_sequences_of_length_zero(engine, words):
    torch.manual_seed(0)
    model, y = Pooled(words).double(), torch.tensor([0, 1, 2])
    x = torch.zeros(3, 0, dtype=torch.int64) if words else torch.zeros(3, 0, 4).double()
    assert_equal(ENGINES[engine](model)(x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("name", ["conv same", "conv groups"])
def test_channels_last_input(name, engine):
    model, (x, y) = build(name).train(engine != "ghost"), image_batch(6)
    expected = oracle(model, x, y, 0.5)
    assert_equal(ENGINES[engine](model)(x.to(memory_format=torch.channels_last), y, 0.5), expected, 1e-10)


def test_agrees_with_opacus_and_torch_func():
    from opacus.grad_sample import GradSampleModule

    model, (x, y) = build("conv plain"), image_batch(9)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x, y):
        return F.cross_entropy(torch.func.functional_call(model, parameters, x[None]), y[None])

    functional = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
    opacus = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    F.cross_entropy(opacus(x), y, reduction="sum").backward()
    sums, norms = clipped_gradient_sum(model, x, y, 1e9)
    for gradients in (functional, {name: p.grad_sample for name, p in opacus._module.named_parameters()}):
        squares = sum(g.flatten(1).square().sum(1) for g in gradients.values())
        assert_equal((sums, norms), ({name: g.sum(0) for name, g in gradients.items()}, squares.sqrt()), 1e-10)


@pytest.mark.parametrize("engine", EXACT)
def test_clip_bounds_every_contribution(engine):
    model, (x, y) = build("conv plain"), image_batch(8)
    clip = oracle(model, x, y, 1.0)[1].median().item()
    for i in range(len(x)):
        sums, norms = ENGINES[engine](model)(x[i : i + 1], y[i : i + 1], clip)
        clipped = torch.cat([g.flatten() for g in sums.values()]).norm()
        torch.testing.assert_close(clipped, norms[0].clamp(max=clip), rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", EXACT)
def test_huge_clip_gives_the_plain_gradient(engine):
    model, (x, y) = build("conv plain"), image_batch(8)
    for clip in (1e9, float("inf")):
        sums, _ = ENGINES[engine](model)(x, y, clip)
        plain = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), model.parameters())
        for found, expected in zip(sums.values(), plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_batch(engine):
    model = build("frozen").float()
    x, y = image_batch(0, dtype=torch.float32)
    sums, norms = ENGINES[engine](model)(x, y, 1.0)
    assert norms.shape == (0,) and norms.dtype == torch.float32
    assert {name: g.shape for name, g in sums.items()} == {
        name: p.shape for name, p in model.named_parameters() if p.requires_grad
    }
    assert all(not g.any() for g in sums.values())


def test_zero_gradients_stay_zero():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 1))
    sums, norms = clipped_gradient_sum(model, torch.ones(3, 8), torch.zeros(3, dtype=torch.int64), 1.0)
    assert not norms.any() and not any(g.any() for g in sums.values())


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        # A view that repeats elements has no memory of its own.
        sizes = [t.numel() for t in tree_leaves(output) if isinstance(t, torch.Tensor) and t.is_contiguous()]
        self.numel = max(self.numel, *sizes, 0)
        return output


def test_explicit_gradients_do_not_fill_the_memory():
    model, (x, y) = conv_net(nn.Conv2d(4, 64, 4)).float(), image_batch(600, dtype=torch.float32)
    activation = model[0](x).numel()
    with LargestTensor() as largest:
        clipped_gradient_sum(model, x, y, 1.0)
    assert activation <= largest.numel <= max(activation, rules.CPU_CHUNK)
    assert largest.numel < len(x) * model[0].weight.numel()


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_was(engine, training):
    model, (x, y) = build("pooled").train(training), image_batch(4)
    model[0].bias.grad = torch.ones_like(model[0].bias)
    before = copy.deepcopy(model.state_dict())
    attributes = [{**vars(module)} for module in model.modules()]
    x.requires_grad_()
    with torch.no_grad():
        sums, norms = ENGINES[engine](model)(x, y, 1.0)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module, old in zip(model.modules(), attributes, strict=True):
        assert vars(module) == old
        assert not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
    for name, p in model.named_parameters():
        assert type(p) is nn.Parameter and not vars(p)
        assert (p.grad is not None) == (name == "0.bias")
    assert torch.equal(model[0].bias.grad, torch.ones_like(model[0].bias)) and x.grad is None
    assert not norms.requires_grad


def test_model_is_restored_after_an_error():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, CLASSES))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes"):
            clipped_gradient_sum(model, *image_batch(3, dtype=torch.float32), 1.0)
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(type(p) is nn.Parameter for p in model.parameters())


def test_model_is_not_kept_alive():
    model = build("pooled")
    clipped_gradient_sum(model, *image_batch(3), 1.0)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_changes_between_calls_are_seen():
    model, (x, y) = build("pooled"), image_batch(4)
    engine = FusedEngine(model)
    engine(x, y, 1.0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    model[0].weight.requires_grad_(False)
    model[-1] = nn.Linear(6, CLASSES).double()
    assert_equal(engine(x, y, 1.0), oracle(model, x, y, 1.0), 1e-10)


def test_dropout_draws_as_the_plain_forward_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(324, 20), nn.Dropout(0.5), nn.Linear(20, CLASSES))
    x, y = image_batch(6, dtype=torch.float32)
    torch.manual_seed(1)
    sums, _ = clipped_gradient_sum(model, x, y, 1e9)
    torch.manual_seed(1)
    F.cross_entropy(model(x), y, reduction="sum").backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(sums[name], p.grad, rtol=1e-4, atol=1e-5)


def test_functional_engine_drops_out_each_example_on_its_own():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    x, y = torch.ones(20, 8), torch.zeros(20, dtype=torch.int64)
    _, norms = ENGINES["functional"](model)(x, y, 1.0)
    assert len(norms.unique()) > 5


def test_ties_in_pooling_windows_go_to_the_same_place():
    model, (x, y) = build("pooled"), image_batch(6)
    with torch.no_grad():
        for conv in (model[0], model[3][0]):
            conv.weight.copy_(conv.weight.sign() * (conv.weight.abs() > 0.1))
            conv.bias.fill_(1)
    assert_equal(clipped_gradient_sum(model, x.round(), y, 0.5), oracle(model, x.round(), y, 0.5), 1e-10)


def test_hooked_relu_keeps_its_place():
    model, (x, y) = build("pooled"), image_batch(3)
    shapes = []
    model[1].register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    clipped_gradient_sum(model, x, y, 1.0)
    assert {shape[2:] for shape in shapes} == {(7, 7)}


# Models without a rule.


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale[:, None, None]


class Reused(nn.Module):
    """The weight of a layer is used again, outside of it."""

    def __init__(self):
        super().__init__()
        self.up, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.up(x.mean((2, 3))).tanh()
        return self.head(F.linear(x, self.up.weight.T))


class Flattened(nn.Module):
    """Positions are moved into the batch dimension, or in front of it."""

    def __init__(self, in_front):
        super().__init__()
        self.in_front = in_front
        self.up, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = x.flatten(2).mT
        if self.in_front:
            return self.head(self.up(x.transpose(0, 1)).tanh().mean(0))
        return self.head(self.up(x.reshape(-1, 4)).tanh().view(len(x), -1, 6).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.cell(x.flatten(2).mT)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = x.flatten(2).mT
        return self.head(self.attention(x, x.flip(1), x)[0].mean(1))


def batch_norm():
    return nn.Sequential(conv_net(nn.Conv2d(4, 3, 3)), nn.BatchNorm1d(CLASSES)).eval()


def normalised_weight():
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(324, CLASSES)))


def subclass():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    return nn.Sequential(nn.Flatten(), Doubled(324, CLASSES))


def patched():
    model = conv_net(nn.Conv2d(4, 3, 3))
    model[3].forward = lambda x: F.linear(x.square(), model[3].weight)
    return model


def instance_norm():
    norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True).eval()
    norm.running_mean.fill_(0.5)
    return nn.Sequential(nn.Conv2d(4, 3, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(147, CLASSES))


UNCOVERED = {
    "custom layer": (lambda: nn.Sequential(Scale(), conv_net(nn.Conv2d(4, 3, 3))), r"scale of 0 \(Scale\)"),
    "weight outside of its layer": (Reused, "up.weight is used outside"),
    "positions in the batch": (lambda: Flattened(False), r"up \(Linear\)"),
    "positions before the batch": (lambda: Flattened(True), r"up \(Linear\)"),
    "recurrent": (Recurrent, r"cell \(GRU\)"),
    "attention": (Attention, r"attention \(MultiheadAttention\)"),
    "batch norm in evaluation mode": (batch_norm, r"1 \(BatchNorm1d\)"),
    "instance norm in evaluation mode": (instance_norm, r"1 \(InstanceNorm2d\)"),
    "patched layer": (patched, r"3 \(Linear\)"),
    "weight norm": (normalised_weight, r"1 \(ParametrizedLinear\)"),
    "subclass": (subclass, r"1 \(Doubled\)"),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", UNCOVERED)
def test_uncovered_model_is_exact_and_says_so_once(name):
    torch.manual_seed(0)
    make, reason = UNCOVERED[name]
    # As many examples as positions, where there are any.
    model, (x, y) = make().double(), image_batch(81 if name.startswith("positions") else 5)
    expected = oracle(model, x, y, 0.5)
    with pytest.warns(UserWarning, match=reason):
        assert_equal(clipped_gradient_sum(model, x, y, 0.5), expected, 1e-10)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "clipping falls back")
        assert_equal(clipped_gradient_sum(model, x, y, 0.5), expected, 1e-10)
    assert [path for path, module in model.named_modules() if "forward" in vars(module)] == (
        ["3"] if name == "patched layer" else []
    )


def test_embedding_tied_to_a_linear_layer():
    torch.manual_seed(0)
    model = Words(CLASSES).double()
    model.head.weight = model.embedding.weight
    x, y = torch.tensor([[0, 1, 1], [2, 2, 4]]), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match=r"head \(Linear\) is shared with another kind of layer"):
        assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


class Overwritten(nn.Module):
    """The input of a layer is changed after it was used."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = x.clone()
        logits = self.head(self.embedding(x).mean(1))
        x.zero_()
        return logits


def test_overwritten_input_is_an_error_as_in_plain_training():
    model, x, y = Overwritten(), torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match=r"input of embedding"), pytest.raises(RuntimeError, match="inplace"):
        clipped_gradient_sum(model, x, y, 1.0)


def test_as_many_positions_before_the_examples_as_examples():
    torch.manual_seed(0)
    model, x, y = Flattened(True).double(), torch.randn(4, 4, 1, 4).double(), torch.tensor([0, 1, 2, 3])
    with pytest.warns(UserWarning, match=r"row i of up \(Linear\) does not belong to example i"):
        assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = torch.utils.checkpoint.checkpoint(self.body, x.mean((2, 3)), use_reentrant=False)
        return self.head(x.tanh())


def test_activation_checkpoints():
    torch.manual_seed(0)
    model, (x, y) = Checkpointed().double(), image_batch(4)
    assert_equal(clipped_gradient_sum(model, x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


# The other engines.


@pytest.mark.parametrize("engine", ["ghost", "hooks"])
@pytest.mark.parametrize("name", UNCOVERED)
def test_opacus_engines_refuse_uncovered_models(name, engine):
    model, (x, y) = UNCOVERED[name][0]().double(), image_batch(3)
    with pytest.raises(ValueError, match="Opacus cannot clip this model"):
        ENGINES[engine](model)(x, y, 1.0)


OTHER_PADDINGS = ["conv circular", "conv reflect", "conv few positions, padded"]
REFUSED = {
    "functional": [],
    "hooks": ["in place", *OTHER_PADDINGS],
    "ghost": ["in place", *OTHER_PADDINGS, "shared", "tied"],
}


@pytest.mark.parametrize("engine", REFUSED)
@pytest.mark.parametrize("name", MODELS)
def test_other_engines_are_exact_or_refuse(name, engine):
    model, (x, y) = build(name), image_batch(4)
    if name in REFUSED[engine]:
        with pytest.raises((ValueError, RuntimeError), match="Opacus cannot clip this model|modified inplace"):
            ENGINES[engine](model)(x, y, 0.5)
    else:
        assert_equal(ENGINES[engine](model)(x, y, 0.5), oracle(model, x, y, 0.5), 1e-10)


@pytest.mark.parametrize("engine", ["ghost", "hooks"])
@pytest.mark.parametrize("layer", [nn.LayerNorm(324, bias=False), nn.Embedding(9, 4, padding_idx=0)], ids=str)
def test_opacus_engines_refuse_flawed_layers(layer, engine):
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(324, CLASSES))
    x = torch.ones(2, 81, dtype=torch.int64) if isinstance(layer, nn.Embedding) else torch.ones(2, 324)
    with pytest.raises(ValueError, match="Opacus cannot clip this model: it .* of 0"):
        ENGINES[engine](model)(x, torch.zeros(2, dtype=torch.int64), 1.0)


# Errors.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_parameters_are_an_error(engine, dtype):
    model, (x, y) = conv_net(nn.Conv2d(4, 3, 3)).float(), image_batch(2, dtype=torch.float32)
    model[3].to(dtype)
    with pytest.raises(ValueError, match=rf"^3.weight is in {dtype}, .*: call model.float\(\)$"):
        ENGINES[engine](model)(x, y, 1.0)


def test_parameters_must_agree_in_their_type():
    model, (x, y) = conv_net(nn.Conv2d(4, 3, 3)), image_batch(2)
    model[3].float()
    with pytest.raises(ValueError, match=r"^3.weight is in torch.float32, other parameters in torch.float64"):
        clipped_gradient_sum(model, x, y, 1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_autocast_around_the_engine_is_an_error(engine):
    model, (x, y) = conv_net(nn.Conv2d(4, 3, 3)).float(), image_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"^autocast is on"):
        ENGINES[engine](model)(x, y, 1.0)


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.body(x.mean((2, 3)))
        return self.head(x.float().tanh())


@pytest.mark.parametrize("engine", ["fused", "ghost", "hooks"])
def test_autocast_inside_the_model_is_an_error(engine):
    model, (x, y) = Autocast(), image_batch(3, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^body \(Linear\) has parameters in torch.float32, but computes .*bfloat16"):
        ENGINES[engine](model)(x, y, 1.0)


def test_autocast_inside_the_model_is_clipped_by_the_functional_engine():
    torch.manual_seed(0)
    model, (x, y) = Autocast(), image_batch(3, dtype=torch.float32)
    # One product of all examples and one of each round their sums differently, to 8 bits.
    assert_equal(ENGINES["functional"](model)(x, y, 0.1), oracle(model, x, y, 0.1), 2e-2)


class Short(nn.Module):
    """There is memory for the batches of the probe, and no more."""

    def __init__(self, error):
        super().__init__()
        self.scale, self.error, self.passes = nn.Parameter(torch.ones(CLASSES)), error, 0

    def forward(self, x):
        if torch._C._functorch.maybe_get_level(x) != -1:
            self.passes += 1
            raise self.error
        return x.mean((2, 3))[:, :1] * self.scale


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: Error code 12"),
    ],
    ids=["device", "cpu"],
)
def test_a_lack_of_memory_is_no_reason_to_go_one_by_one(error):
    model, (x, y) = Short(error), image_batch(3, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="memory"):
        ENGINES["functional"](model)(x, y, 1.0)
    assert model.passes == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_clip_must_be_positive(engine, clip):
    with pytest.raises(ValueError, match=f"clip must be positive, got {clip}"):
        ENGINES[engine](build("conv plain"))(*image_batch(2), clip)


@pytest.mark.parametrize("y", [torch.zeros(3).long(), torch.zeros(2, 1).long(), torch.zeros(2)], ids=str)
def test_y_must_be_classes(y):
    with pytest.raises(ValueError, match=r"y must hold int64 classes of shape \(2,\), got"):
        clipped_gradient_sum(build("conv plain"), image_batch(2)[0], y, 1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_model_must_return_logits(engine):
    model = nn.Sequential(nn.Conv2d(4, CLASSES, 3))
    with pytest.raises(ValueError, match=r"must return logits of shape \(., classes\), got"):
        ENGINES[engine](model)(*image_batch(2, dtype=torch.float32), 1.0)


def test_model_must_have_trainable_parameters():
    with pytest.raises(ValueError, match="Sequential has no parameter that requires a gradient"):
        clipped_gradient_sum(build("conv plain").requires_grad_(False), *image_batch(2), 1.0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False).eval(),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
    ids=str,
)
def test_batch_statistics_are_an_error(engine, norm):
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(324, CLASSES)).double()
    with pytest.raises(ValueError, match=rf"^0 \({type(norm).__name__}\) .* statistics of the batch"):
        ENGINES[engine](model)(*image_batch(3), 1.0)


def test_import_leaves_opacus_alone():
    code = "import sys, dprobust.engines; sys.exit('opacus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("engine", EXACT)
def test_cuda_agrees_with_the_cpu_and_never_waits(engine):
    model, (x, y) = build("pooled"), image_batch(20)
    expected = oracle(model, x, y, 0.5)
    run = ENGINES[engine](model.cuda())
    x, y = x.cuda(), y.cuda()
    run(x, y, 0.5)
    torch.cuda.set_sync_debug_mode("error" if engine == "fused" else "default")
    try:
        sums, norms = run(x, y, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_equal(({name: g.cpu() for name, g in sums.items()}, norms.cpu()), expected, 1e-9)
