import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dprobust.layers import quick


def resting(model):
    return model.requires_grad_(False)


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def derivatives(model, x):
    """Outputs, input gradient of a random combination, and the derivative of that gradient's square."""
    x = x.clone().requires_grad_()
    output = model(x)
    weights = torch.arange(output.numel(), dtype=x.dtype).sin().view(output.shape)
    (gradient,) = torch.autograd.grad((weights * output.tanh()).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    return output, gradient, second


@pytest.mark.parametrize("n", [1, 2, 1500])
@pytest.mark.parametrize(
    "arguments",
    [
        {"in_channels": 1},
        {"in_channels": 3, "padding": (2, 1), "stride": (2, 3), "dilation": (1, 2), "bias": False},
        {"in_channels": 2, "stride": 2},
        {"in_channels": 3, "groups": 3},
        {"in_channels": 3, "kernel_size": 3, "padding": "same"},
        {"in_channels": 3, "padding": 1, "padding_mode": "reflect"},
        {"in_channels": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolutions_have_the_derivatives_of_pytorch(arguments, n, memory_format):
    torch.manual_seed(0)
    model = resting(
        nn.Conv2d(**{"out_channels": 6, "kernel_size": (3, 2)} | arguments).double().to(memory_format=memory_format)
    )
    x = images(n, arguments["in_channels"], 8, 9).contiguous(memory_format=memory_format)
    expected = derivatives(model, x)
    with quick(model):
        found = derivatives(model, x)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_backward_pass_of_image_convolutions_is_ours():
    model = resting(nn.Conv2d(1, 4, 3))
    x = torch.rand(2, 1, 6, 6, requires_grad=True)
    with quick(model):
        assert "ImageConvolution" in type(model(x).grad_fn).__name__
        assert model(x.detach()).grad_fn is None
        assert model(x[0]).shape == (4, 4, 4)
    assert "ImageConvolution" not in type(model(x).grad_fn).__name__


def test_pooling_before_relu_changes_no_bit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU(), nn.MaxPool2d(2, padding=1), nn.ReLU(), nn.Flatten())
    resting(model.double())
    x = images(7, 5, 9, 9).sign()  # ties
    expected = derivatives(model, x)
    with quick(model):
        found = derivatives(model, x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_relu_sees_pooled_images_unless_a_hook_watches(monkeypatch):
    seen, relu = [], F.relu
    monkeypatch.setattr(F, "relu", lambda input, inplace: seen.append(tuple(input.shape)) or relu(input, inplace))
    model, x = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), torch.rand(1, 1, 4, 4)
    with quick(model):
        model(x)
    model[1].register_forward_pre_hook(lambda module, inputs: None)
    with quick(model):
        model(x)
    assert seen == [(1, 1, 2, 2), (1, 1, 4, 4)]


def test_the_model_is_left_as_it_was_after_an_error_and_when_nested():
    def changed():
        return [name for name, module in model.named_modules() if "forward" in vars(module)]

    model = resting(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)))
    with pytest.raises(ZeroDivisionError), quick(model):
        with quick(model):
            assert changed() == ["", "0"]
        assert changed() == ["", "0"]
        raise ZeroDivisionError
    assert changed() == []


def test_a_forward_of_the_users_own_stays():
    model = nn.Conv2d(1, 4, 3)
    own = model.forward = lambda input: input
    with quick(model):
        assert model(1) == 1
    assert model.forward is own
