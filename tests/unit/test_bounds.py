import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from dprobust.attacks import pgd
from dprobust.bounds import certified, least_margins, margin_bounds
from dprobust.bounds.backward import Image
from dprobust.bounds.chain import chain
from dprobust.bounds.planes import slopes
from dprobust.errors import UserError

NETS = {
    "pool": lambda: [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4)],
    "twice": lambda: [
        nn.Conv2d(1, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(3, 4, 2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(16, 3),
    ],
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


CORNERS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)


@pytest.mark.parametrize("floor", [True, False], ids=["relu", "max"])
def test_slopes_are_near_the_best_ones(floor):
    """In the middle the plane is little above the lowest of all, a linear program's, in parts of the spread."""
    generator = torch.Generator().manual_seed(0)
    vectors, middles = (torch.randn(*shape, generator=generator).double() for shape in ((40, 4, 3), (40, 4)))
    reach = vectors.abs().sum(2)
    found = slopes(vectors, middles, middles - reach, middles + reach, floor)
    assert ((found >= 0) & (found <= 1)).all()
    above = []
    for v, m, slope in zip(vectors, middles, found, strict=True):
        x = CORNERS @ v.T + m  # (8, K); a convex function is largest in a corner
        top = x.amax(1).clamp_min(0) if floor else x.amax(1)
        height = slope @ m + (top - x @ slope).amax()
        rows = np.hstack([-x.numpy(), -np.ones((8, 1))])
        best = linprog([*m.tolist(), 1.0], A_ub=rows, b_ub=-top.numpy(), bounds=[(0, 1)] * 4 + [(None, None)])
        above.append((height.item() - best.fun) / (x.max() - x.min()).item())
    assert min(above) > -1e-6 and max(above) < 0.03 and np.mean(above) < 0.002


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(NETS))
def test_every_maximum_lies_between_its_linear_bounds(name, seed):
    model, x, _ = net(name, seed)
    blocks = chain(model.double(), (1, 4, 4))
    low, high = (x[0].double() - 0.3).clamp_min(0), (x[0].double() + 0.3).clamp_max(1)
    bounds, now = Image(blocks, low, high), torch.lerp(low, high, torch.rand(3000, 1, 4, 4).double().round(decimals=0))
    for block in blocks[:-1]:
        bounds.relax()
        for layer in block.layers:
            now = layer.value(now)
        members, now = block.maximum.members(now), block.maximum.value(now)
        below, above, bottom, top = bounds.relaxed[-1]
        for slopes_, constant, sign in ((below, bottom, 1), (above, top, -1)):
            assert (sign * (now - (slopes_ * members).sum(1) - constant)).min() >= -1e-12
        least, most = bounds.bounds[-1]
        assert (least <= now + 1e-12).all() and (now <= most + 1e-12).all()


def test_windows_are_bounded_as_one():
    """Of members that all move alike their sum of chords is loose, the plane exact."""
    first, last = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(1, 2)
    model = nn.Sequential(nn.AvgPool2d(2, 1, 1), first, nn.MaxPool2d(2, 1), nn.ReLU(), nn.Flatten(), last)
    with torch.no_grad():
        first.weight.fill_(4.0)
        last.weight[:, 0], last.bias[:] = torch.tensor([-1.0, 0.0]), torch.tensor([1.5, 0.0])
    x = torch.full((1, 1, 1, 1), 0.5)  # padded, so that every member is the pixel: max(0, x, x, x, x)
    bound = margin_bounds(model, x, torch.tensor([0]), 0.25)[0, 1]
    assert bound == pytest.approx(1.5 - 0.75, abs=1e-4)


def test_bounds_hold_for_float32_in_any_order_of_sums():
    """A sum whose terms cancel: what float32 makes of it depends on their order."""
    torch.manual_seed(0)
    big = torch.randn(200) * 1e5
    weight = torch.cat([big, -big + 1e-3 * torch.rand(200)])
    worst = 0.0
    for _ in range(5):
        order = torch.randperm(400)
        model = nn.Sequential(nn.Flatten(), nn.Linear(400, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
        with torch.no_grad():
            model[1].weight[0], model[1].weight[1], model[1].bias[:] = weight[order], -weight[order], 0.0
            model[3].weight[:], model[3].bias[:] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), 0.0
        x, y = torch.full((1, 1, 20, 20), 0.7), torch.tensor([0])
        exact = (0.7 * 2 * weight.double()).sum().item()
        bound = margin_bounds(model, x, y, 0.0)[0, 1]
        found = margins(model, x, y)[0, 1].item()
        assert bound <= found and bound <= exact
        worst = max(worst, abs(found - exact))
    assert worst > 1e-3  # rounding is seen at all


def test_several_eps_by_bisection():
    model, x, y = net("pool", 1)
    y = y.clone()
    y[0] = (y[0] + 1) % 4
    eps = [0.001, 0.005, 0.02, 0.05, 0.2]
    found = least_margins(model, x, y, eps)
    single = torch.stack([margin_bounds(model, x, y, e).scatter(1, y[:, None], torch.inf).amin(1) for e in eps])
    assert ((found > 0) == (single > 0)).all() and (found <= single + 1e-9).all()
    assert torch.isinf(found[:, 0]).all() and 0 < (found > 0).sum() < found.numel()
    with pytest.raises(ValueError, match="eps: .* does not ascend"):
        least_margins(model, x, y, [0.2, 0.1])
