import pytest
import torch
from torch import nn

from dprobust.crosssection import cross_section
from dprobust.errors import UserError


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6 * 3 * 4, 4),
    ).eval()


def affine(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight, bias
    return nn.Sequential(nn.Flatten(), layer)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def image(seed=1, dtype=torch.float32):
    return torch.rand(2, 8, 10, generator=seeded(seed), dtype=dtype)


def test_affine_regions_are_half_planes():
    w = torch.randn(160, generator=seeded(2), dtype=torch.float64)
    x = image(dtype=torch.float64)
    distance = 0.3
    # Class 0 where w x >= its value at x less 0.3 |w|, so that the boundary is 0.3 away, against w.
    bias = -(w @ x.flatten()) + distance * w.norm()
    model = affine(torch.stack([w, torch.zeros_like(w)]), torch.stack([bias, torch.zeros_like(bias)]))
    section = cross_section(model, x, 1.0, 41, seeded())
    torch.testing.assert_close(section.normal.flatten(), -w / w.norm())
    assert section.distance == pytest.approx(distance, rel=3e-4)
    expected = (section.offsets > distance).byte()[:, None].expand(41, 41)
    away = (section.offsets - distance).abs() > 1e-9
    assert torch.equal(section.classes[away], expected[away])
    assert set(section.classes.flatten().tolist()) == {0, 1}


def test_axes_and_grid():
    model, x = conv_net(), image()
    section = cross_section(model, x, 2.0, 21, seeded())
    normal, tangent = section.normal.flatten(), section.tangent.flatten()
    assert normal.norm().item() == pytest.approx(1, abs=1e-5)
    assert tangent.norm().item() == pytest.approx(1, abs=1e-5)
    assert (normal @ tangent).item() == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(section.offsets, torch.linspace(-2, 2, 21))
    assert section.classes.shape == (21, 21) and section.classes.dtype == torch.uint8
    with torch.no_grad():
        for i, j in [(0, 0), (0, 20), (20, 0), (3, 17), (10, 10)]:
            point = x + section.offsets[i] * section.normal + section.offsets[j] * section.tangent
            assert section.classes[i, j] == model(point[None]).argmax()
        own = model(x[None]).argmax()
        assert section.classes[10, 10] == own
        crossed = x + section.distance * section.normal
        assert model(crossed[None]).argmax() != own
    assert len(section.classes.unique()) > 1


def test_tangent_is_one_draw_for_every_model():
    x = image()
    draw = torch.randn(x.shape, generator=seeded(9)).flatten()
    for weight_seed in (3, 4):
        model = affine(torch.randn(3, 160, generator=seeded(weight_seed)), torch.zeros(3))
        section = cross_section(model, x, 1.0, 5, seeded(9))
        normal = section.normal.flatten()
        expected = draw - (draw @ normal) * normal
        torch.testing.assert_close(section.tangent.flatten(), expected / expected.norm())
    other = cross_section(model, x, 1.0, 5, seeded(10))
    assert not torch.allclose(other.tangent, section.tangent)


@pytest.mark.parametrize("batch_size", [1, 50])
def test_result_does_not_depend_on_batch_size(batch_size):
    model, x = conv_net().double(), image(dtype=torch.float64)
    one = cross_section(model, x, 2.0, 15, seeded(), batch_size)
    assert torch.equal(one.classes, cross_section(model, x, 2.0, 15, seeded()).classes)


def test_model_and_image_are_left_as_found():
    model, x = conv_net().train(), image()
    before = x.clone()
    cross_section(model, x, 1.0, 5, seeded())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, before) and not x.requires_grad


def test_bad_input():
    model, x = conv_net(), image()
    for arguments, message in [
        ((x - 1, 1.0, 5), r"x must lie in \[0, 1\]"),
        ((x[None], 1.0, 5), r"x must be float images of shape \(N, C, H, W\)"),
        ((x, 0.0, 5), "half_width must be a finite number > 0, found 0.0"),
        ((x, 1.0, 0), "resolution must be a whole number >= 1, found 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            cross_section(model, *arguments, seeded())


@pytest.mark.parametrize("weight", [0.0, torch.nan])
def test_a_network_without_boundary(weight):
    constant = affine(torch.full((3, 160), weight), torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(UserError, match="DeepFool finds no decision boundary around the image"):
        cross_section(constant, image(), 1.0, 5, seeded())


def test_an_image_of_one_pixel_has_no_plane():
    model = affine(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    with pytest.raises(UserError, match="an image of one pixel has no plane"):
        cross_section(model, torch.full((1, 1, 1), 0.5), 1.0, 5, seeded())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    model, x = conv_net().double(), image(dtype=torch.float64)
    on_cpu = cross_section(model, x, 2.0, 15, seeded())
    model.cuda()
    for images in (x, x.cuda()):
        on_cuda = cross_section(model, images, 2.0, 15, seeded())
        torch.testing.assert_close(on_cuda.normal.cpu(), on_cpu.normal)
        assert torch.equal(on_cuda.classes.cpu(), on_cpu.classes)
