import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dprobust.corruptions import corrupt
from dprobust.corruptions.pessimal import pessimal_matrix, pessimal_pattern

QUICK = ((3, 1000.0), (2, 100.0))


def data(n=200):
    """Two classes of noisy images: brighter on the left or on the right of each 14x14 tile."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, n)
    side = np.where((np.arange(28) % 14 < 7) == (labels[:, None] == 0), 12, -12)[:, None, :]
    return (128 + side + random.normal(0, 40, (n, 28, 28))).clip(0, 255).astype(np.uint8), labels


def linear_classifier(pattern):
    """Two classes; the logits move apart along a pattern (14, 14), the same on each tile."""
    layer = nn.Linear(784, 2)
    weight = torch.tensor(np.tile(pattern, (2, 2)).reshape(784), dtype=torch.float32)
    with torch.no_grad():
        layer.weight[:] = torch.stack([weight, -weight])
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer)


def test_noise_against_a_linear_classifier_is_along_its_weights():
    pattern = np.random.default_rng(1).standard_normal((14, 14)) / 14
    images, labels = data()
    matrix = pessimal_matrix(linear_classifier(pattern), images, labels, schedule=QUICK)
    assert matrix.shape == (196, 196) and matrix.dtype == np.float32
    noise = np.random.default_rng(2).standard_normal((100, 196)) @ matrix
    cosines = noise @ pattern.reshape(-1) / np.linalg.norm(noise, axis=1) / np.linalg.norm(pattern)
    assert np.median(np.abs(cosines)) > 0.95 and 20 < (cosines > 0).sum() < 80


def test_the_pattern_against_a_linear_classifier_is_its_weights():
    weights = np.random.default_rng(1).standard_normal((14, 14))
    images, labels = data()
    epochs = []
    pattern = pessimal_pattern(
        linear_classifier(weights / 14), images, labels, progress=lambda epoch, _: epochs.append(epoch)
    )
    assert pattern.shape == (14, 14) and pattern.dtype == np.float32 and epochs == [1, 2, 3]
    np.testing.assert_allclose(np.linalg.norm(pattern), 1, rtol=1e-6)
    assert abs((pattern * weights).sum()) / np.linalg.norm(weights) > 0.98


def test_a_step_is_the_gradient_of_the_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Linear(192, 4))
    images, labels = data(6)
    got = pessimal_matrix(model, images, labels, seed=3, schedule=[(1, 50.0)], batch_size=6)

    random = torch.Generator().manual_seed(3)
    order = torch.randperm(6, generator=random)
    z = torch.randn(6, 196, generator=random).double()
    x, y = torch.from_numpy(images)[order].double() / 255, torch.from_numpy(labels)[order]
    model = model.double()

    def loss(matrix):
        tile = z @ matrix
        tile = tile * 10.63 / 4 / tile.norm(dim=1, keepdim=True)
        noise = tile.view(6, 14, 14).tile(1, 2, 2)
        return F.nll_loss(model((x + noise).clamp(0, 1)[:, None]).log_softmax(1), y)

    step = torch.func.grad(loss)(torch.eye(196, dtype=torch.float64)).detach()
    np.testing.assert_allclose(got - np.eye(196), 50 * step, atol=1e-5)
    assert step.abs().max() > 1e-4


def test_hurts_more_than_unoptimised_noise_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    images, labels = data(400)
    x, y = torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels)
    optimiser = torch.optim.SGD(model.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    model[3].eval()
    optimiser.zero_grad()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    matrix = pessimal_matrix(model, images, labels, 5, QUICK, progress=lambda *epoch: losses.append(epoch))
    pattern = pessimal_pattern(model, images, labels, 5)

    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4, 5] and losses[-1][1] > losses[0][1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert [layer.training for layer in model] == [True, True, True, False, True]
    assert (matrix == pessimal_matrix(model, images, labels, 5, QUICK)).all()
    assert (matrix != pessimal_matrix(model, images, labels, 6, QUICK)).any()
    assert (pattern == pessimal_pattern(model, images, labels, 5)).all()

    def accuracy(pattern):
        noisy = corrupt(images, "pessimal_noise", 0, pattern=pattern)
        return (model.eval()(torch.from_numpy(noisy)[:, None] / 255).argmax(1) == y).float().mean().item()

    assert accuracy(np.eye(196)) > 0.95 and accuracy(matrix) < 0.75
    assert accuracy(pattern) <= accuracy(matrix) + 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 1, 28, 28), np.uint8)}, r"images must be .* found uint8 \(4, 1, 28, 28\)"),
        ({"labels": np.zeros(3, np.int64)}, r"labels must be 4 > 0 integers, found int64 \(3,\)"),
        ({"labels": np.zeros(4)}, r"labels must be 4 > 0 integers, found float64 \(4,\)"),
        (
            {"images": np.zeros((0, 28, 28), np.uint8), "labels": np.zeros(0, int)},
            "labels must be 0 > 0 integers",
        ),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, found 0"),
    ],
)
def test_bad_input(change, message):
    images, labels = data(4)
    arguments = {"images": images, "labels": labels, "schedule": QUICK} | change
    for function in (pessimal_matrix, pessimal_pattern):
        with pytest.raises(ValueError, match=message):
            function(linear_classifier(np.ones((14, 14))), **arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_same_on_cuda():
    images, labels = data(50)
    model = linear_classifier(np.ones((14, 14)) / 14)
    expected = pessimal_matrix(model, images, labels, schedule=[(1, 10.0)])
    got = pessimal_matrix(model.cuda(), images, labels, schedule=[(1, 10.0)])
    np.testing.assert_allclose(got, expected, atol=1e-3)
