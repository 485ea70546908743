import foolbox
import pytest
import torch
from torch import nn

from dprobust.distances import HALVINGS, _boundary, boundary_distance, boundary_distances, deepfool

ORDER = {"l2": 2, "linf": torch.inf}


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def conv_net(classes=5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6 * 3 * 4, 16),
        nn.Tanh(),
        nn.Linear(16, classes),
    ).eval()


def affine(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight, bias
    return nn.Sequential(nn.Flatten(), layer)


def random_affine(classes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(classes, 160, generator=generator, dtype=dtype)
    return affine(weight, torch.randn(classes, generator=generator, dtype=dtype))


def batch(model, n=24, dtype=torch.float32, right=False):
    """Images and the classes the model gives them, but for every fourth image unless `right`."""
    x = torch.rand(n, 2, 8, 10, generator=torch.Generator().manual_seed(2), dtype=dtype)
    with torch.no_grad():
        y = model(x).argmax(1)
        if not right:
            y[::4] = model(x).argmin(1)[::4]
    return x, y


def closed_form(model, x, y, norm, signed=False):
    """Distance of each image to the nearest of the hyperplanes f_y = f_k, class by class."""
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    distances = []
    for image, label in zip(x.flatten(1), y.tolist(), strict=True):
        to_others = []
        for k in set(range(len(weight))) - {label}:
            w = weight[label] - weight[k]
            value = w @ image + bias[label] - bias[k]
            to_others.append(value / (w.abs().sum() if norm == "linf" else w.square().sum().sqrt()))
        to_others = torch.stack(to_others)
        distances.append(to_others.min() if signed else to_others.abs().min())
    return torch.stack(distances)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("classes", [2, 6])
def test_affine_closed_form(norm, classes):
    model = random_affine(classes)
    x, y = batch(model, dtype=torch.float64)
    torch.testing.assert_close(boundary_distance(model, x, y, norm), closed_form(model, x, y, norm))
    signed = getattr(boundary_distances(model, x, y), f"{norm}_signed")
    torch.testing.assert_close(signed, closed_form(model, x, y, norm, signed=True))


def test_signed_distances_tell_right_from_wrong():
    model = conv_net()
    x, y = batch(model)
    result = boundary_distances(model, x, y)
    with torch.no_grad():
        assert torch.equal(result.correct, model(x).argmax(1) == y)
    assert result.correct.any() and not result.correct.all()
    for absolute, signed in ((result.l2, result.l2_signed), (result.linf, result.linf_signed)):
        assert (absolute >= 0).all()
        assert torch.equal(signed > 0, result.correct)
        assert torch.equal(signed[result.correct], absolute[result.correct])


@pytest.mark.parametrize("classes", [3, 300])
def test_nearest_class_is_that_of_the_closed_form(classes):
    model = random_affine(classes)
    x, y = batch(model, dtype=torch.float64)
    result = boundary_distances(model, x, y)
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    logits = x.flatten(1) @ weight.T + bias
    assert result.predicted.dtype == (torch.uint8 if classes <= 256 else torch.int16)
    assert torch.equal(result.predicted.long(), logits.argmax(1))
    for found, order in ((result.l2_class, 2), (result.linf_class, 1)):
        for i, label in enumerate(y.tolist()):
            others = [k for k in range(classes) if k != label]
            to = [(logits[i, label] - logits[i, k]).abs() / (weight[label] - weight[k]).norm(order) for k in others]
            assert found[i] == others[int(torch.stack(to).argmin())]


def test_linearised_distance_agrees_with_torch_func():
    model = conv_net().double()
    x, y = batch(conv_net())
    x = x.double()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda image: model(image[None])[0]))(x).flatten(2)
    logits = model(x).detach()
    for norm, q in (("l2", 2), ("linf", 1)):
        expected = torch.full((24,), torch.inf, dtype=torch.float64)
        for i in range(24):
            for k in range(5):
                if k != y[i]:
                    gap = (logits[i, y[i]] - logits[i, k]).abs()
                    distance = gap / (jacobian[i, y[i]] - jacobian[i, k]).norm(p=q)
                    expected[i] = torch.minimum(expected[i], distance)
        torch.testing.assert_close(boundary_distance(model, x, y, norm), expected)


@pytest.mark.parametrize("make", [conv_net, lambda: random_affine(6, torch.float32)])
def test_linf_is_at_most_l2(make):
    model = make()
    x, y = batch(model)
    result = boundary_distances(model, x, y)
    assert (result.linf < result.l2).all()
    x, y = x[result.correct], y[result.correct]
    assert (deepfool(model, x, y, "linf").distance < deepfool(model, x, y, "l2").distance).all()


@pytest.mark.parametrize("factor", [1e-3, 10.0, 1e3])
@pytest.mark.parametrize("norm", ORDER)
def test_logit_scale_changes_nothing(factor, norm):
    model = conv_net()
    x, y = batch(model)
    scaled = nn.Sequential(model, Scale(factor))
    torch.testing.assert_close(
        boundary_distance(scaled, x, y, norm), boundary_distance(model, x, y, norm), rtol=1e-4, atol=1e-7
    )
    one, other = deepfool(scaled, x, y, norm), deepfool(model, x, y, norm)
    assert torch.equal(one.iterations, other.iterations)
    torch.testing.assert_close(one.distance, other.distance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("overshoot", [0.02, 0.1])
def test_deepfool_is_the_closed_form_on_an_affine_model(norm, overshoot):
    model = random_affine(6)
    x, y = batch(model, dtype=torch.float64, right=True)
    result = deepfool(model, x, y, norm, overshoot=overshoot)
    expected = closed_form(model, x, y, norm)
    torch.testing.assert_close(result.landing, (1 + overshoot) * expected)
    # Bisecting ends beyond the boundary, by no more than its last half of the step.
    beyond = result.distance / expected - 1
    assert (beyond > 0).all() and (beyond < (1 + overshoot) * 2**-HALVINGS + 1e-9).all()
    assert (result.iterations == 1).all() and result.fooled.all()


@pytest.mark.parametrize("norm", ORDER)
def test_deepfool_stops_at_the_boundary(norm):
    model = conv_net().double()
    x, y = batch(conv_net(), right=True)
    x = x.double()
    result = deepfool(model, x, y, norm)
    assert result.fooled.all() and (result.iterations > 1).any()
    with torch.no_grad():
        assert torch.equal(model(result.images).argmax(1), result.predicted.long())
        # Before the last step the image was right: so it is just short of the point found, along that step.
        for steps in result.iterations.unique().tolist():
            chosen = result.iterations == steps
            short = x[chosen]
            if steps > 1:
                short = deepfool(model, x[chosen], y[chosen], norm, max_iterations=steps - 1).images
            near = short + (1 - 1e-3) * (result.images[chosen] - short)
            assert (model(near).argmax(1) == y[chosen]).all()
    assert (result.distance < result.landing).all()
    assert (result.distance > 0.9 * result.landing).all()


def test_an_image_that_is_not_fooled_is_not_moved():
    class Island(nn.Module):
        """Class 1 around 0.5, class 0 on both sides."""

        def forward(self, x):
            x = x.flatten(1)
            return torch.cat([torch.zeros_like(x), 0.1 - (x - 0.5).abs()], 1)

    ends = [torch.full((2, 1, 1, 1), value) for value in (0.0, 1.0)]
    predicted, y = torch.zeros(2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    found, there = _boundary(Island(), *ends, predicted, y, torch.tensor([False, True]))
    assert found.flatten()[0] == 1 and found.flatten()[1] == pytest.approx(0.4, abs=1e-3)
    assert there.tolist() == [0, 1]


@pytest.mark.parametrize("norm", ORDER)
def test_deepfool_agrees_with_foolbox(norm):
    model = conv_net().double()
    x, y = batch(conv_net(), right=True)
    x = x.double()
    attack = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[norm]
    unbounded = foolbox.PyTorchModel(model, bounds=(-100, 100))
    images = attack(candidates=None).run(unbounded, x, y)
    expected = torch.linalg.vector_norm((images - x).flatten(1), ORDER[norm], dim=1)
    result = deepfool(model, x, y, norm)
    assert result.fooled.all()
    # Foolbox adds 1e-4 to every step.
    atol = 1.02e-4 * result.iterations.max().item()
    torch.testing.assert_close(result.landing, expected, rtol=1e-3, atol=atol)
    assert (result.iterations > 1).any()


@pytest.mark.parametrize("norm", ORDER)
def test_deepfool_reports_what_it_returns(norm):
    model = conv_net()
    x, y = batch(model)
    result = deepfool(model, x, y, norm)
    with torch.no_grad():
        wrong = model(x).argmax(1) != y
        assert torch.equal(model(result.images).argmax(1) != y, result.fooled)
    assert result.fooled.all()
    assert (result.distance[wrong] == 0).all() and (result.iterations[wrong] == 0).all()
    assert torch.equal(result.images[wrong], x[wrong])
    assert (result.distance[~wrong] > 0).all() and (result.iterations[~wrong] > 0).all()
    norms = torch.linalg.vector_norm((result.images - x).flatten(1), ORDER[norm], dim=1)
    torch.testing.assert_close(result.distance, norms)


def test_deepfool_marks_what_it_cannot_fool():
    model = conv_net()
    x, y = batch(model, right=True)
    full = deepfool(model, x, y, "l2")
    short = deepfool(model, x, y, "l2", max_iterations=1)
    assert torch.equal(short.fooled, full.iterations == 1)
    assert short.fooled.any() and not short.fooled.all()
    assert torch.equal(short.distance.isinf(), ~short.fooled) and torch.equal(short.landing.isinf(), ~short.fooled)


def test_deepfool_crosses_a_boundary_it_starts_on():
    model = affine(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2))
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    for norm in ORDER:
        result = deepfool(model, x, y, norm)
        assert result.fooled.all() and 0 < result.distance < 1e-5


def test_constant_model_has_no_boundary():
    model = affine(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.0]))
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    result = boundary_distances(model, x, y)
    assert result.l2[0] == result.linf[0] == torch.inf
    assert result.l2[1] == 0 and result.l2_signed[1] == -torch.inf
    for bias in ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]):
        model[1].bias.data = torch.tensor(bias)
        for norm in ORDER:
            outcome = deepfool(model, x, y, norm)
            assert outcome.fooled.tolist() == [False, True]
            assert outcome.distance.tolist() == [torch.inf, 0]
            assert torch.equal(outcome.images, x)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_result_does_not_depend_on_batch_size(batch_size):
    model = conv_net().double()
    x, y = batch(conv_net())
    x = x.double()
    for one, other in [
        (boundary_distances(model, x, y, batch_size), boundary_distances(model, x, y)),
        (deepfool(model, x, y, "l2", batch_size=batch_size), deepfool(model, x, y, "l2")),
        (deepfool(model, x, y, "linf", batch_size=batch_size), deepfool(model, x, y, "linf")),
    ]:
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_model_is_left_as_found():
    model = conv_net().train()
    x, y = torch.rand(3, 2, 8, 10), torch.tensor([0, 1, 2])
    boundary_distances(model, x, y)
    deepfool(model, x, y, "l2", max_iterations=2)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not x.requires_grad


@pytest.mark.parametrize("call", [lambda *a: boundary_distance(*a, "l2"), lambda *a: deepfool(*a, "linf")])
def test_bad_images_and_labels(call):
    x, y = torch.full((2, 2, 8, 10), 0.5), torch.tensor([0, 1])
    for bad_x, bad_y, message in [
        (x - 0.6, y, r"x must lie in \[0, 1\]"),
        (x, y.float(), r"y must be int64 of shape \(2,\), found torch.float32"),
        (x, y[:, None], r"y must be int64 of shape \(2,\), found torch.int64 \(2, 1\)"),
        (x, y + 4, "y must lie in 0 to 4, found 4 to 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(conv_net(), bad_x, bad_y)


def test_bad_settings():
    arguments = conv_net(), torch.full((2, 2, 8, 10), 0.5), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="norm must be one of l2, linf, found 'l1'"):
        boundary_distance(*arguments, "l1")
    with pytest.raises(ValueError, match="norm must be one of l2, linf, found 'L2'"):
        deepfool(*arguments, "L2")
    with pytest.raises(ValueError, match="max_iterations must be a whole number >= 1, found 0"):
        deepfool(*arguments, "l2", max_iterations=0)
    with pytest.raises(ValueError, match="overshoot must be a finite number >= 0, found -0.1"):
        deepfool(*arguments, "l2", overshoot=-0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    model = conv_net().double()
    x, y = batch(conv_net())
    x = x.double()
    on_cpu = [*boundary_distances(model, x, y), *deepfool(model, x, y, "l2"), *deepfool(model, x, y, "linf")]
    model.cuda()
    on_cuda = [*boundary_distances(model, x, y), *deepfool(model, x, y, "l2"), *deepfool(model, x, y, "linf")]
    for a, b in zip(on_cpu, on_cuda, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
