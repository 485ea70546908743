"""What is summed of one example has norm at most C (1 + 1e-6): searched for violations, engine by engine."""

import copy
import itertools
import warnings

import pytest
import torch
from torch import nn

from dprobust import clipping
from dprobust.engines import ENGINES, clipped_gradient_sum

CLASSES = 5
BOUND = 1 + 1e-6
SHORT = {"bfloat16": 2.0**-7}
"""By how much the norm of what is clipped may fall short of C: factor times gradient is rounded towards zero."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:clipping falls back"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]


def norm(sums):
    """In float64, where squares of float32 neither overflow nor vanish."""
    return torch.cat([g.double().flatten() for g in sums.values()]).norm().item()


def contributions(engine, x, y, clip):
    """Norms of what is summed of each example, in a batch of its own."""
    return [norm(engine(x[i : i + 1], y[i : i + 1], clip)[0]) for i in range(len(x))]


class KeyPool(nn.Module):
    """Tokens (N, T, d) pooled by a softmax over their keys: the gradient of the keys' weight cancels over tokens."""

    def __init__(self, width, frozen=True, shrink=1.0):
        super().__init__()
        self.shrink = shrink
        self.key, self.query = nn.Linear(width, width, bias=False), nn.Linear(width, 1, bias=False)
        self.head = nn.Linear(width, CLASSES)
        if frozen:
            self.query.requires_grad_(False)
            self.head.requires_grad_(False)

    def forward(self, x):
        weights = self.query(self.key(x)).softmax(1)
        return self.head((weights * x).sum(1) * self.shrink)


class Difference(nn.Module):
    """Embeddings of two positions, one taken from the other."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 8), nn.Linear(8, CLASSES).requires_grad_(False)

    def forward(self, x):
        x = self.embedding(x)
        return self.head(1000 * x[:, 0] - 999.9 * x[:, 1] + x[:, 2:].sum(1))


class Shared(nn.Module):
    """A linear layer on single vectors and on tokens, a normalisation, and weights that two convolutions share."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3, stride=2)
        self.b.weight = self.a.weight
        self.norm, self.linear = nn.GroupNorm(2, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        tokens = torch.cat([self.norm(conv(x)).flatten(2).mT for conv in (self.a, self.b)], 1)
        return self.head(self.linear(self.linear(tokens).tanh().mean(1)))


class Scaled(nn.Module):
    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x):
        return self.model(x) * self.scale


def close_tokens(n, width, ratio, tokens=2):
    """Tokens whose common mean is `ratio` times what tells them apart."""
    x = torch.randn(n, tokens, width)
    return ratio * torch.randn(n, 1, width) + x


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ratio", [1, 300, 1000, 1e5])
def test_close_tokens(engine, ratio):
    torch.manual_seed(0)
    # Shrunk, else its logits are so far apart that there is no gradient.
    model, x, y = KeyPool(64, shrink=1 / ratio), close_tokens(8, 64, ratio), torch.randint(CLASSES, (8,))
    true = contributions(ENGINES["functional"](copy.deepcopy(model).double()), x.double(), y, 1e9)
    for clip in (min(true) / 10, sorted(true)[4]):
        found = contributions(ENGINES[engine](model), x, y, clip)
        assert max(found) <= clip * BOUND
        if ratio < 300:  # beyond, float32 gets the gradient itself wrong, and only the bound is left
            near = 0.05 if engine == "bfloat16" else 1e-5
            assert found == pytest.approx(torch.tensor(true).clamp(max=clip).tolist(), rel=near)
        elif clip < min(true) and ratio < 1e5 and engine != "bfloat16":  # to which such tokens may be all alike
            assert min(found) >= 0.99 * clip
        sums, _ = ENGINES[engine](model)(x, y, clip)
        for i in range(len(x)):
            # A batch as large, in which this example has no gradient: the others round as before.
            rest, _ = ENGINES[engine](model)(x.index_fill(0, torch.tensor(i), 0), y, clip)
            moved = norm({name: sums[name].double() - rest[name].double() for name in sums})
            assert moved <= clip * (1 + 3e-6)  # two sums, rounded


@pytest.mark.parametrize("engine", ENGINES)
def test_a_word_at_positions_that_cancel(engine):
    torch.manual_seed(0)
    model, y = Difference(), torch.randint(CLASSES, (6,))
    x = torch.tensor([[1, 1, 2], [3, 3, 3], [4, 5, 5], [6, 6, 7], [8, 8, 0], [0, 0, 0]])
    true = contributions(ENGINES["functional"](copy.deepcopy(model).double()), x, y, 1e9)
    for clip in (min(true) / 10, 1.0):
        found = contributions(ENGINES[engine](model), x, y, clip)
        assert max(found) <= clip * BOUND
        near = 0.01 if engine == "bfloat16" else 1e-3
        assert found == pytest.approx(torch.tensor(true).clamp(max=clip).tolist(), rel=near)


def constant(kind):
    """A model, and an image of it, whose gradient has many elements that are all alike."""
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(100_000, 2)), torch.full((1, 100_000), 0.7)
    if kind == "norm":
        mean, last = nn.AdaptiveAvgPool1d(1), nn.Linear(2, 2).requires_grad_(False)
        x = torch.randn(1, 2, 40_000).sign()
        return nn.Sequential(nn.LayerNorm([2, 40_000]), mean, nn.Flatten(), last), x
    conv, head = nn.Conv2d(64, 64, 5), nn.Linear(64, 2).requires_grad_(False)
    with torch.no_grad():
        conv.weight.fill_(0.01)
        head.weight.copy_(torch.tensor([[0.37], [-0.37]]).expand(2, 64))
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), torch.full((1, 64, 16, 16), 0.7)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["conv", "linear", "norm"])
def test_many_equal_elements(engine, kind):
    torch.manual_seed(0)
    model, x = constant(kind)
    y = torch.tensor([1])
    _, norms = ENGINES[engine](model)(x, y, 1.0)
    for clip in (norms.item() / 3, norms.item() / 1.7e4):
        (found,) = contributions(ENGINES[engine](model), x, y, clip)
        assert clip * (1 - SHORT.get(engine, 1e-6)) <= found <= clip * BOUND


@pytest.mark.parametrize("value", torch.logspace(-12, 8, 9).tolist())
@pytest.mark.parametrize("elements", [1, 500, 1040, 4800, 25_600])
def test_squares_are_never_too_small(elements, value):
    torch.manual_seed(elements)
    rows = torch.stack([torch.full((elements,), value), value * torch.randn(elements), torch.zeros(elements)])
    exact = rows.double().square().sum(1)
    found = clipping.at_least(clipping.squares_by_blocks(rows), elements)
    assert (found >= exact * (1 - 1e-15)).all()
    assert (found <= exact * (1 + 2.4e-6) + 1e-33).all()
    torch.testing.assert_close(clipping.squares(rows), exact, rtol=1e-12, atol=0)


# Random networks.


def random_case(seed):
    """A network, four examples of one size, and their classes."""
    random = torch.Generator().manual_seed(seed)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (), generator=random))]

    torch.manual_seed(seed)
    kind = seed % 6
    if kind == 0:
        channels, groups = pick((3, 1), (4, 2))
        conv = nn.Conv2d(channels, 8, pick(1, 3, 5), stride=pick(1, 2), padding=pick(0, 1, 2), groups=groups)
        model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES))
        x = torch.randn(4, channels, pick(5, 8), pick(5, 9))
    elif kind == 1:
        width = pick(3, 30, 700)
        model = nn.Sequential(nn.Linear(width, 20), nn.Tanh(), nn.LayerNorm(20), nn.Linear(20, CLASSES))
        x = torch.randn(4, width)
    elif kind == 2:
        tokens, width = pick(2, 5, 30), pick(6, 64)
        model, x = KeyPool(width, pick(True, False)), close_tokens(4, width, pick(0, 100, 3000), tokens)
    elif kind == 3:
        words = nn.Embedding(pick(3, 50), 12, padding_idx=pick(None, 0))
        model = nn.Sequential(words, KeyPool(12, False))
        x = torch.randint(words.num_embeddings, (4, pick(1, 2, 7)))
    elif kind == 4:
        model, x = Shared(), pick(1, 30) + torch.randn(4, 3, pick(5, 7), pick(5, 9))
    else:
        tokens = pick(2, 6)
        model = nn.Sequential(
            nn.Linear(8, 200), nn.Tanh(), nn.Linear(200, 64), nn.Flatten(), nn.Linear(64 * tokens, CLASSES)
        )
        x = close_tokens(4, 8, pick(0, 50), tokens)
    return model, x, torch.randint(CLASSES, (4,))


@pytest.mark.parametrize("engine", ENGINES)
def test_random_networks(engine):
    tried = zeros = refused = 0
    for seed, scale in itertools.product(range(18), (1.0, 1e15, 1e-20)):
        model, x, y = random_case(seed)
        model = Scaled(model, scale)
        # An example without gradient: its logits are all alike.
        x[3] = x[3] if x.dtype == torch.int64 else 0
        run = ENGINES[engine](model)
        try:
            _, norms = run(x, y, 1.0)
        except ValueError as reason:
            assert "Opacus cannot clip" in str(reason)
            refused += 1
            continue
        assert norms.isfinite().all()
        for clip in (1e-4, norms.median().item() / 2 or 1.0, 1e4):
            found = contributions(run, x, y, clip)
            assert max(found) <= clip * BOUND, (seed, scale, clip, found)
            # Clipping is no way out: what is longer than C keeps C.
            for length, own in zip(found, norms.tolist(), strict=True):
                assert length >= min(own, clip) * (1 - 1e-2), (seed, scale, clip, found, norms)
                tried += own > clip
                zeros += own == 0
    assert tried > 100
    assert refused == 0 or engine in ("ghost", "hooks")


# Gradients that are not finite, or not in float32.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_adds_nothing(engine, bad):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, CLASSES))
    x, y = torch.randn(4, 3, 5, 5), torch.randint(CLASSES, (4,))
    rest = [0, 1, 3]
    expected, _ = ENGINES[engine](model)(x[rest], y[rest], 0.5)
    x[2, 0, 1, 1] = bad
    with warnings.catch_warnings():
        sums, norms = ENGINES[engine](model)(x, y, 0.5)
    assert norms.isfinite().tolist() == [True, True, False, True]
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("words", [False, True])
def test_tokens_that_are_not_finite_add_nothing(words):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), KeyPool(8, False)) if words else KeyPool(8, False)
    x, y = (torch.arange(9).view(3, 3) if words else torch.randn(3, 3, 8)), torch.tensor([0, 1, 2])
    expected, _ = clipped_gradient_sum(model, x[:2], y[:2], 0.5)
    if words:
        with torch.no_grad():
            model[0].weight[8] = torch.inf
    else:
        x[2] = torch.inf
    sums, norms = clipped_gradient_sum(model, x, y, 0.5)
    assert norms.isfinite().tolist() == [True, True, False]
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e25, 1e36, 1e-25, 1e-40])
@pytest.mark.parametrize("layers", ["linear", "conv", "tokens"])
def test_squares_outside_float32(layers, scale):
    """The norm is in range, its square is not."""
    torch.manual_seed(0)
    x = {"linear": torch.randn(3, 7), "conv": torch.randn(3, 3, 9, 9), "tokens": torch.randn(3, 2, 64)}[layers]
    model = {
        "linear": nn.Linear(7, CLASSES),
        "conv": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)),
        "tokens": KeyPool(64, False),
    }[layers]
    y = model(x).argmin(1)
    run = ENGINES["fused"](Scaled(model, scale))
    found = contributions(run, x, y, 1e-4)
    assert max(found) <= 1e-4 * BOUND
    _, norms = run(x, y, 1e-4)
    assert norms.isfinite().all()
    if scale > 1:
        # Factors that are no normal number, 1e-4 / 1e35, are 0.
        assert all(length == 0 or length >= 1e-4 * (1 - 1e-5) for length in found)
        assert scale > 1e30 or min(found) > 0


# Clip functions.


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "bfloat16"])
@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e3])
def test_clip_functions(engine, clip):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, CLASSES)).double()
    x, y = torch.randn(6, 3, 5, 5).double(), torch.randint(CLASSES, (6,))
    each = [
        torch.autograd.grad(nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), model.parameters())
        for i in range(6)
    ]
    norms = torch.stack([torch.cat([g.flatten() for g in example]).norm() for example in each])
    factors = {"abadi": 1 / (norms / clip).clamp(min=1), "automatic": clip / (norms + 0.01)}
    assert set(factors) == set(clipping.CLIP_FUNCTIONS)
    for name, weights in factors.items():
        expected = [sum(w * g for w, g in zip(weights, part, strict=True)) for part in zip(*each, strict=True)]
        sums, found = ENGINES[engine](model, clip_function=name)(x, y, clip)
        torch.testing.assert_close(found, norms, rtol=1e-10, atol=0)
        for value, wanted in zip(sums.values(), expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12 * clip)
        single = copy.deepcopy(model).float()
        assert max(contributions(ENGINES[engine](single, name), x.float(), y, clip)) <= clip * BOUND


def test_the_default_clips_as_algorithm_1_and_other_names_are_refused():
    model, x, y = nn.Linear(3, 2), torch.ones(1, 3), torch.tensor([0])
    default, named = clipped_gradient_sum(model, x, y, 0.1), clipped_gradient_sum(model, x, y, 0.1, "abadi")
    assert all(torch.equal(default[0][name], named[0][name]) for name in named[0])
    with pytest.raises(ValueError, match="clip_function must be one of abadi, automatic, got 'flat'"):
        clipped_gradient_sum(model, x, y, 0.1, "flat")
