import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dprobust import curvature
from dprobust.curvature import (
    curvature_profile,
    finite_difference_curvature,
    input_hessian_eigenvalues,
)
from dprobust.errors import UserError


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class SquareAbove(nn.Module):
    """Curved only where its input exceeds a threshold."""

    def forward(self, x):
        return x + torch.relu(x - 0.5).square()


def conv_net(activation=nn.ReLU, classes=5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 2),
        activation(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 12),
        activation(),
        nn.Linear(12, classes),
        Scale(8.0),
    ).eval()


def affine(weight, bias, scale=1.0):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data, layer.bias.data = scale * weight, scale * bias
    return nn.Sequential(nn.Flatten(), layer)


def batch(n=6, classes=5):
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x, torch.arange(n) % classes


def loss_of(model, label):
    return lambda image: cross_entropy(model(image[None]), label[None])


def hessians(model, x, y):
    """torch.func.hessian of the cross-entropy, float64 (N, D, D)."""
    size = x[0].numel()
    return torch.stack(
        [
            torch.func.hessian(loss_of(model, label))(image).reshape(size, size).detach()
            for image, label in zip(x, y, strict=True)
        ]
    )


def assert_spectra_equal(found, expected, rtol):
    """Equal to rtol of each spectrum's largest magnitude, the accuracy of a dense eigensolver."""
    scale = expected.abs().amax(1, keepdim=True)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=rtol)


@pytest.mark.parametrize("method", ["auto", "gauss_newton", "full"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Hardtanh])
def test_piecewise_linear_net_equals_torch_func(method, activation):
    model, (x, y) = conv_net(activation).double(), batch()
    expected = torch.linalg.eigvalsh(hessians(model, x, y)).flip(1)
    found = input_hessian_eigenvalues(model, x, y, 64, method)
    assert found.dtype == torch.float64 and found.shape == (6, 64)
    assert_spectra_equal(found, expected, 1e-10)
    torch.testing.assert_close(found[:, :2], expected[:, :2], rtol=1e-10, atol=0)


@pytest.mark.parametrize("classes", [2, 5])
def test_rank_is_below_the_number_of_classes(classes):
    model, (x, y) = conv_net(classes=classes).double(), batch(classes=classes)
    eigenvalues = input_hessian_eigenvalues(model, x, y, 9)
    assert (eigenvalues[:, : classes - 1] > 0).all()
    assert (eigenvalues[:, classes - 1 :] == 0).all()
    assert (eigenvalues.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus, nn.SiLU])
def test_smooth_net_takes_the_full_hessian(activation):
    model, (x, y) = conv_net(activation).double(), batch()
    expected = torch.linalg.eigvalsh(hessians(model, x, y)).flip(1)
    found = input_hessian_eigenvalues(model, x, y, 64)
    assert_spectra_equal(found, expected, 1e-10)
    assert (found[:, -1] < 0).all()
    part = input_hessian_eigenvalues(model, x, y, 64, "gauss_newton")
    assert ((part - found).abs().amax(1) > 1e-3 * found[:, 0]).all()


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_net_that_curves_at_some_images_only(batch_size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), SquareAbove(), nn.Linear(64, 3)).double()
    x, y = batch(classes=3)
    x[::2] /= 2
    expected = torch.linalg.eigvalsh(hessians(model, x, y)).flip(1)
    assert_spectra_equal(input_hessian_eigenvalues(model, x, y, 64, batch_size=batch_size), expected, 1e-10)


def test_affine_net_and_more_classes_than_inputs():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    model = affine(weight, torch.zeros(7, dtype=torch.float64))
    x, y = torch.rand(3, 1, 2, 2, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 6])
    expected = torch.linalg.eigvalsh(hessians(model, x, y)).flip(1)
    torch.testing.assert_close(input_hessian_eigenvalues(model, x, y, 4), expected)


@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0])
def test_small_eigenvalues_keep_their_digits(scale):
    # det(diag p' - p' p'^T) = p_1 ... p_K, so the product of the K - 1 eigenvalues is p_1 ... p_K det(C C^T).
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    bias = torch.tensor([0.2, 0.1, 0.0, -0.1], dtype=torch.float64)
    x, y = torch.full((1, 1, 3, 3), 0.01, dtype=torch.float64), torch.tensor([1])
    model = affine(weight, bias, scale)
    eigenvalues = input_hessian_eigenvalues(model, x, y, 3)[0]
    c = scale * (weight[1:] - weight[0])
    expected = model(x).detach().log_softmax(1).sum() + torch.logdet(c @ c.T)
    torch.testing.assert_close(eigenvalues.log().sum(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0, 1e4])
def test_two_classes_closed_form(scale):
    # lambda_1 = p_1 p_2 ||w_0 - w_1||^2, here with logit gaps up to 5000: p_2 itself is then 0 in float64.
    weight = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    model = affine(weight, torch.zeros(2), scale)
    x, y = torch.tensor([[0.25, 0.125], [0.5, 0.0]]).view(2, 1, 1, 2), torch.tensor([0, 1])
    profile = curvature_profile(model, x, y, 2)
    gap = scale * torch.tensor([0.5, 0.5], dtype=torch.float64)
    squared = 5 * scale**2
    expected = torch.sigmoid(gap) * torch.sigmoid(-gap) * squared
    torch.testing.assert_close(profile.eigenvalues[:, 0], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        profile.confidence_free, torch.full((2,), squared, dtype=torch.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("method", ["gauss_newton", "full"])
def test_confidence_free_value(method):
    model, (x, y) = conv_net().double(), batch()
    profile = curvature_profile(model, x, y, 3, method)
    p = model(x).detach().softmax(1).topk(2).values.prod(1)
    torch.testing.assert_close(profile.confidence_free, profile.eigenvalues[:, 0] / p)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_profile_tells_confidence(activation):
    model, (x, y) = conv_net(activation).double(), batch()
    profile = curvature_profile(model, x, y, 3)
    p = model(x).detach().softmax(1)
    expected = p.sort(1, descending=True).values
    torch.testing.assert_close(profile.p1, expected[:, 0])
    torch.testing.assert_close(profile.p2, expected[:, 1])
    assert torch.equal(profile.correct, p.argmax(1) == y)
    assert profile.correct.any() and not profile.correct.all()


def test_whole_hessians_a_few_at_a_time_are_the_same(monkeypatch):
    model, (x, y) = conv_net(nn.Tanh).double(), batch()
    expected = curvature_profile(model, x, y, 3)
    sizes = []
    full = curvature._full_profile
    monkeypatch.setattr(curvature, "_full_profile", lambda m, x, y, k: sizes.append(len(x)) or full(m, x, y, k))
    monkeypatch.setattr(curvature, "HESSIANS", 4 * 64**2)
    for a, b in zip(curvature_profile(model, x, y, 3), expected, strict=True):
        torch.testing.assert_close(a, b)
    assert sizes == [4, 2]


def test_constants_in_float32_are_refused_in_one_line():
    model, (x, y) = torch.jit.freeze(torch.jit.script(conv_net())), batch()
    for call in (
        lambda: curvature_profile(model, x.float(), y, 3),
        lambda: finite_difference_curvature(model, x.float(), y),
    ):
        with pytest.raises(UserError, match="curvature is computed in float64, which the network does not take") as e:
            call()
        assert "\n" not in str(e.value)


def test_finite_difference_equals_torch_func():
    model, (x, y) = conv_net().double(), batch()
    h = [0.1, 0.5, 1.5, 3.0]
    found = finite_difference_curvature(model, x, y)
    assert found.shape == (6, 4) and found.dtype == torch.float64
    for i in range(6):
        gradient = torch.func.grad(loss_of(model, y[i]))
        at_x = gradient(x[i]).detach()
        z = at_x.sign() / at_x.sign().norm()
        for column, distance in enumerate(h):
            change = (gradient(x[i] + distance * z).detach() - at_x).norm()
            torch.testing.assert_close(found[i, column], change / distance)


def test_finite_difference_tends_to_the_hessian():
    model, (x, y) = conv_net(nn.Tanh).double(), batch()
    found = finite_difference_curvature(model, x, y, [1e-5])[:, 0]
    for i, hessian in enumerate(hessians(model, x, y)):
        sign = torch.func.grad(loss_of(model, y[i]))(x[i]).detach().sign().flatten()
        torch.testing.assert_close(found[i], (hessian @ sign).norm() / sign.norm(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("gap", [1.0, 60.0, 600.0])
def test_finite_difference_of_a_saturated_model(gap):
    # An affine model of two classes: grad L = (1 - p_y) w, and float64 rounds 1 - p_y to 0 from a gap of 37.
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    model = affine(weight, torch.tensor([gap, 0.0]))
    x, y = torch.zeros(1, 1, 1, 2), torch.tensor([0])
    found = finite_difference_curvature(model, x, y, [0.5, 2.0])
    for column, h in enumerate([0.5, 2.0]):
        # The step follows the loss, along -(1, 1) / sqrt(2): it lowers the gap by 7 h / sqrt(2).
        after = 1 / (1 + math.exp(gap - 7 * h / math.sqrt(2)))
        before = 1 / (1 + math.exp(gap))
        assert found[0, column].item() == pytest.approx(5 * (after - before) / h, rel=1e-9, abs=0)


def test_finite_difference_of_a_constant_model_is_zero():
    model = affine(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.0]))
    found = finite_difference_curvature(model, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert (found == 0).all()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_result_does_not_depend_on_batch_size(batch_size):
    model, (x, y) = conv_net().double(), batch()
    one = [
        *curvature_profile(model, x, y, 6, batch_size=batch_size),
        finite_difference_curvature(model, x, y, batch_size=batch_size),
    ]
    other = [*curvature_profile(model, x, y, 6), finite_difference_curvature(model, x, y)]
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-15)


def test_float32_model_is_left_as_found():
    model = conv_net().train()
    model[1].eval()
    x, y = batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    eigenvalues = input_hessian_eigenvalues(model, x.float(), y, 4)
    finite_difference_curvature(model, x.float(), y)
    assert eigenvalues.dtype == torch.float64
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model] == [True, False] + 11 * [True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bad_input():
    model, (x, y) = conv_net().double(), batch()
    for arguments, message in [
        ((x + 1, y, 3), r"x must lie in \[0, 1\]"),
        ((x, y.int(), 3), r"y must be int64 of shape \(6,\), found torch.int32"),
        ((x, y + 1, 3), "y must lie in 0 to 4, found 1 to 5"),
        ((x, y, 0), "k must be a whole number >= 1, found 0"),
        ((x, y, 65), "k must be at most the 64 input dimensions, found 65"),
        ((x, y, 3, "exact"), "method must be one of auto, gauss_newton, full, found 'exact'"),
    ]:
        with pytest.raises(ValueError, match=message):
            input_hessian_eigenvalues(model, *arguments)
    for h in ([], [0.0], [0.1, -1.0], [math.nan]):
        with pytest.raises(ValueError, match="h must hold finite numbers > 0, found"):
            finite_difference_curvature(model, x, y, h)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_cuda_equals_cpu(activation):
    model, (x, y) = conv_net(activation), batch()
    x = x.float()
    on_cpu = [*curvature_profile(model, x, y, 4), finite_difference_curvature(model, x, y)]
    model.cuda()
    on_cuda = [*curvature_profile(model, x, y, 4), finite_difference_curvature(model, x, y)]
    for a, b in zip(on_cpu, on_cuda, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)
