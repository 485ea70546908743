"""The engine in bfloat16: what it sums is what it measured, the same in every batch, and near to the exact gradients.

That no example adds more than C (1 + 1e-6) is searched for with all engines in test_engines_bound.py.
"""

import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dprobust import fused, gradients, layers, rounded
from dprobust.clipping import CLIP_FUNCTIONS
from dprobust.engines import ENGINES
from dprobust.errors import UserError
from dprobust.models import networks
from dprobust.objectives import cross_entropy

CLASSES = 5


class Tokens(nn.Module):
    """A linear layer at many positions, normalisation, and one layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.up, self.norm = nn.Linear(4, 40), nn.LayerNorm(40)
        self.mix, self.head = nn.Linear(40, 40), nn.Linear(40, CLASSES)

    def forward(self, x):
        x = self.norm(self.up(x.flatten(2).mT)).tanh().mean(1)
        return self.head(self.mix(self.mix(x).tanh()))


class Kernels(nn.Module):
    """Convolutions of one position, in groups, pooled, and with more output than a chunk may hold."""

    def __init__(self):
        super().__init__()
        self.wide, self.pool = nn.Conv2d(4, 64, 5, padding=1), nn.MaxPool2d(2)
        self.groups, self.last = nn.Conv2d(64, 8, 2, groups=4), nn.Conv2d(8, 6, 2, groups=2)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.last(F.gelu(self.groups(F.relu(self.pool(self.wide(x)))))).flatten(1))


MODELS = {
    "lenet": (lambda: networks.build({"name": "lenet", "channels": [5, 9]}, (1, 28, 28), CLASSES), (1, 28, 28)),
    "head": (lambda: nn.Sequential(nn.Linear(300, 80), nn.ReLU(), nn.Linear(80, CLASSES)), (300,)),
    "tokens": (Tokens, (4, 9, 9)),
    "kernels": (Kernels, (4, 9, 9)),
}


def setup(name, n=7):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, random = make(), torch.Generator().manual_seed(1)
    return model, torch.rand(n, *shape, generator=random), torch.randint(CLASSES, (n,), generator=random)


def clipped(model, x, y, clip, clip_function="abadi"):
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return rounded.clipped_sum(model, parameters, x, y, clip, clip_function)


def flat(sums):
    return torch.cat([g.double().flatten() for g in sums.values()])


def numbers(model, x, y):
    """What stands for the gradient of each example (N, elements), written out in float64 layer by layer."""
    parameters = dict(model.named_parameters())
    channels_last = fused.probe(model, fused.supported_layers(model), parameters, x)
    rows = []
    for p, uses in rounded._uses(model, parameters, x, y, cross_entropy, channels_last).items():
        found = []
        for i in range(len(x)):
            a, g, layer = uses[0].a[i : i + 1], uses[0].g[i : i + 1], uses[0].layer
            if isinstance(layer, nn.LayerNorm):
                weight = F.layer_norm(a, layer.normalized_shape) if uses[0].name == "weight" else 1
                found.append((g * weight).flatten(0, -2).sum(0).flatten())
            elif uses[0].name == "bias":
                total = sum(
                    u.g[i].double().reshape(len(p), -1).sum(1) if u.g.dim() == 4 else u.g[i].double() for u in uses
                )
                total = total.reshape(-1, len(p)).sum(0)
                several = sum(u.g[i].numel() for u in uses) > len(p) * len(uses)
                found.append(total.bfloat16() if several else total)
            elif isinstance(layer, nn.Linear):
                product = sum(
                    u.g[i].reshape(-1, len(p)).double().T @ u.a[i].reshape(-1, p.shape[1]).double() for u in uses
                )
                positions = sum(u.g[i].numel() for u in uses) // len(p)
                found.append((product.bfloat16() if positions > 1 else product).flatten())
            else:
                padded = F.pad(a.double(), layer._reversed_padding_repeated_twice)
                kernel = torch.nn.grad.conv2d_weight(padded, p.shape, g.double(), layer.stride, 0, 1, layer.groups)
                found.append(kernel.bfloat16().flatten())
        rows.append(torch.stack([row.double() for row in found]))
        assert rows[-1].shape == (len(x), p.numel())
    return torch.cat(rows, 1), list(rounded._uses(model, parameters, x, y, cross_entropy, channels_last))


@pytest.mark.parametrize("clip_function", CLIP_FUNCTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_summed_is_what_was_measured(name, clip_function, monkeypatch):
    """The sum is that of the rounded numbers, clipped in float64 by their own norms, whatever the chunks."""
    model, x, y = setup(name)
    monkeypatch.setattr(gradients, "CPU_CHUNK", 30_000)
    expected, order = numbers(model, x, y)
    norms = expected.norm(dim=1)
    for clip in (norms.min().item() / 3, norms.median().item(), norms.max().item() * 2):
        sums, found = clipped(model, x, y, clip, clip_function)
        names = {p: name for name, p in model.named_parameters()}
        sums = flat({names[p]: sums[names[p]] for p in order})
        # A last bit of a float32 sum may turn the rounding of an element to bfloat16; factors are exact.
        torch.testing.assert_close(found.double(), norms, rtol=1e-4, atol=0)
        factors = CLIP_FUNCTIONS[clip_function](norms, clip)
        total = (expected * factors[:, None]).sum(0)
        assert (sums - total).norm() <= 2.0**-7 * factors.mul(norms).norm()


@pytest.mark.parametrize("name", MODELS)
def test_an_example_adds_the_same_to_every_batch(name):
    """The law behind the bound: sums are sums of what single examples give, in batches of any size."""
    model, x, y = setup(name, 33)
    clip = clipped(model, x, y, 1.0)[1].median().item()
    alone = torch.stack([flat(clipped(model, x[i : i + 1], y[i : i + 1], clip)[0]) for i in range(len(x))])
    assert (alone.norm(dim=1) <= clip * (1 + 1e-6)).all()
    for part in (slice(0, 33), slice(1, 33), slice(30, 33)):
        together = flat(clipped(model, x[part], y[part], clip)[0])
        assert (together - alone[part].sum(0)).norm() <= 1e-6 * clip * math.sqrt(len(alone[part]))


@pytest.mark.parametrize("name", MODELS)
def test_near_to_float32(name):
    model, x, y = setup(name, 64)
    for clip in (0.1, 1e6):
        found, norms = clipped(model, x, y, clip)
        expected, lengths = ENGINES["functional"](model)(x, y, clip)
        torch.testing.assert_close(norms, lengths, rtol=0.05, atol=0)
        assert F.cosine_similarity(flat(found), flat(expected), 0) > 0.998
        assert abs(flat(found).norm() / flat(expected).norm() - 1) < 0.01


def test_products_are_of_bfloat16_numbers():
    """What makes it fast; and that the float32 factors of linear layers are such numbers too."""
    model, x, y = setup("kernels")
    uses = rounded._uses(model, dict(model.named_parameters()), x, y, cross_entropy, True)
    wide = rounded.gradient(model.wide.weight, uses[model.wide.weight])
    assert isinstance(wide, rounded.Explicit) and {t.dtype for u in wide.uses for t in (u.a, u.g)} == {torch.bfloat16}
    products = wide.per_example(slice(None))
    assert products.dtype == torch.float32 and torch.equal(products, products.bfloat16().float())
    head = rounded.gradient(model.head.weight, uses[model.head.weight])
    assert isinstance(head, rounded.Factors)
    for factor in head.uses[0].a, head.uses[0].g:
        assert factor.dtype == torch.float32 and torch.equal(factor, factor.bfloat16().float())


def test_truncated_values_are_no_longer():
    values = torch.cat([torch.randn(10_000) * scale for scale in (1e-38, 1e-3, 1.0, 1e30)])
    values = torch.cat([values, torch.tensor([0.0, -0.0, 1.0, 1.9999999, -3.3e38, math.inf])])
    found = rounded.truncated(values)
    assert torch.equal(found, found.bfloat16().float()) and (found.abs() <= values.abs()).all()
    normal = values.abs() > 2e-38
    assert (
        (found - values).abs()[normal & values.isfinite()] <= 2.0**-7 * values.abs()[normal & values.isfinite()]
    ).all()
    assert rounded.truncated(torch.tensor([math.nan])).isnan().all()


def test_products_of_bfloat16_numbers_lose_nothing():
    a, b = torch.randn(33, 200).bfloat16(), torch.randn(200, 70).bfloat16()
    before = torch.get_float32_matmul_precision()
    with rounded.bfloat16_factors():
        found = a.float() @ b.float()
    assert torch.get_float32_matmul_precision() == before
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=0, atol=2e-5)


def test_an_example_that_changes_with_the_size_of_its_batch_is_refused():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.head(x * (1 + len(x) / 1024))

    model, x, y = Sized(), torch.rand(9, 4), torch.zeros(9, dtype=torch.int64)
    for _ in range(2):
        with pytest.raises(UserError, match="how many others are in its batch"):
            clipped(model, x, y, 1.0)


def test_the_check_leaves_the_model_and_the_random_numbers_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))
    before = copy.deepcopy(model.state_dict())
    x, y = torch.rand(9, 4), torch.zeros(9, dtype=torch.int64)
    torch.manual_seed(1)
    first = flat(clipped(model, x, y, 1.0)[0])
    torch.manual_seed(1)
    again = flat(clipped(model, x, y, 1.0)[0])
    assert torch.equal(first, again) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all("forward" not in vars(module) for module in model.modules())


def test_what_it_cannot_do_is_refused_in_one_line():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.head = nn.Parameter(torch.ones(4)), nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.head(x * self.scale)

    x, y = torch.rand(3, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(UserError, match="^engine: bfloat16 cannot clip this model: there is no rule.*; use fused$"):
        ENGINES["bfloat16"](Scaled())(x, y, 1.0)
    with pytest.raises(UserError, match="^engine: bfloat16 takes parameters in float32, 0.weight is in .*float64;"):
        ENGINES["bfloat16"](nn.Sequential(nn.Linear(4, CLASSES)).double())(x.double(), y, 1.0)


ELSEWHERE = """
import sys, torch
from torch import nn
from dprobust.engines import ENGINES
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
x, y = torch.rand(9, 3, 8, 8), torch.arange(9) % 5
found = {name: ENGINES[name](model)(x, y, 0.5) for name in ("bfloat16", "fused")}
alone = [ENGINES["bfloat16"](model)(x[i:i+1], y[i:i+1], 0.5)[0] for i in range(9)]
flat = lambda sums: torch.cat([g.double().flatten() for g in sums.values()])
print(torch.backends.cpu.get_cpu_capability())
print(max(flat(sums).norm().item() for sums in alone))
print((sum(map(flat, alone)) - flat(found["bfloat16"][0])).norm().item())
print(torch.cosine_similarity(*(flat(sums) for sums, _ in found.values()), 0).item())
"""


def test_without_instructions_for_bfloat16():
    slow = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    command = [sys.executable, "-c", ELSEWHERE]
    out = subprocess.run(command, env=os.environ | slow, capture_output=True, text=True, check=True).stdout.split()
    capability, longest, apart, cosine = out[0], *map(float, out[1:])
    assert capability in ("AVX2", "DEFAULT", "NO", "VSX", "SVE256", "Z")
    assert longest <= 0.5 * (1 + 1e-6) and longest > 0.49 and apart < 1e-6 and cosine > 0.998


# The max-pooling it uses.


@pytest.mark.parametrize("shape", [(3, 4, 6, 8), (2, 5, 7, 9), (2, 3, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_is_max_pooling(shape, dtype):
    torch.manual_seed(0)
    # No two values are alike: then there is only one right gradient.
    x = torch.randperm(math.prod(shape)).view(shape).to(torch.float32 if math.prod(shape) > 256 else dtype)
    x = (x - 20).to(memory_format=torch.channels_last).requires_grad_()
    pool = nn.MaxPool2d(2)
    ours, theirs = layers.quick_pooling(pool)(x), pool(x)
    assert "HalvingPool" in type(ours.grad_fn).__name__ and torch.equal(ours, theirs)
    g = torch.randn_like(ours)
    (found,), (expected,) = (torch.autograd.grad(out, x, g) for out in (ours, theirs))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d((2, 3)),
    ],
    ids=str,
)
def test_other_pooling_is_pytorchs(pool):
    x = torch.randn(2, 3, 7, 7).to(memory_format=torch.channels_last).requires_grad_()
    found = layers.quick_pooling(pool)(x)
    assert "HalvingPool" not in type(found.grad_fn).__name__ and torch.equal(found, pool(x))


def test_equal_values_share_no_gradient():
    x = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    out = layers.quick_pooling(nn.MaxPool2d(2))(x)
    (found,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(F.avg_pool2d(found, 2), torch.full_like(out, 0.25)) and set(found.unique().tolist()) == {0, 1}
