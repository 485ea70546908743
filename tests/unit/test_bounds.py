import pytest
import torch
from torch import nn

from dprobust.attacks import pgd
from dprobust.bounds import certified, margin_bounds
from dprobust.errors import UserError

NETS = {
    "pool": lambda: [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4)],
    "overlap": lambda: [
        nn.Conv2d(1, 3, 2),
        nn.MaxPool2d(2, 1),
        nn.ReLU(),
        nn.Conv2d(3, 2, 2, stride=1, padding=1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(2, 5),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    ],
}


def net(name, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(*NETS[name]()).eval()
    x = torch.rand(6, 1, 4, 4)
    x[:, :, :2] = (x[:, :, :2] > 0.5).float()  # the box is cut, and poolings tie
    return model, x, model(x).argmax(1)


def margins(model, x, y):
    logits = model(x)
    return logits.gather(1, y[:, None]) - logits


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.5])
def test_no_point_in_the_ball_lies_below_the_bounds(name, seed, eps):
    model, x, y = net(name, seed)
    bounds = margin_bounds(model, x, y, eps)
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for i in range(len(x)):
        share = torch.rand(2000, 1, 4, 4)
        share[1000:] = share[1000:].round()
        points = torch.cat(
            [torch.lerp(low[i], high[i], share), pgd(model, x[i : i + 1], y[i : i + 1], eps, eps / 4, 20)]
        )
        with torch.no_grad():
            assert (margins(model, points, y[i].expand(len(points))).amin(0) >= bounds[i]).all()


def test_at_eps_0_they_are_the_margins_and_a_label_has_0():
    model, x, y = net("overlap", 0)
    bounds = margin_bounds(model, x, y, 0.0)
    torch.testing.assert_close(bounds.float(), margins(model, x, y).detach(), atol=1e-4, rtol=0)
    assert (bounds.gather(1, y[:, None]) == 0).all() and certified(model, x, y, 0.0).all()


def test_a_linear_network_has_the_exact_bounds_of_the_cut_box():
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), torch.rand(5, 1, 3, 3), torch.tensor([0, 1, 2, 0, 1])
    w, b = model[1].weight.detach().double(), model[1].bias.detach().double()
    low, high = ((x.double() + e).clamp(0, 1).flatten(1) for e in (-0.3, 0.3))
    d, c = w[y][:, None] - w, b[y][:, None] - b
    exact = (d.clamp_min(0) * low[:, None] + d.clamp_max(0) * high[:, None]).sum(2) + c
    bounds = margin_bounds(model, x, y, 0.3)
    torch.testing.assert_close(bounds, exact, atol=2e-5, rtol=0)
    assert (bounds <= exact + 1e-12).all()


def test_a_layer_without_bounds_is_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Tanh())
    with pytest.raises(UserError, match=r"layer 2 \(Tanh\)"):
        margin_bounds(model, torch.rand(1, 1, 2, 2), torch.tensor([0]), 0.1)
