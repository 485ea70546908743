"""The check of attacks: plain networks pass, planted slips are flagged."""

import numpy as np
import pytest
import torch
from torch import nn

from dprobust.attacks import check, pgd
from dprobust.attacks.checks import THRESHOLDS, WHY

EPS = 0.1


def blobs(n, seed):
    """Images (n, 1, 12, 12) of four classes: a bright corner on noise."""
    draws = torch.Generator().manual_seed(seed)
    x = 0.35 + 0.12 * torch.randn(n, 1, 12, 12, generator=draws)
    y = torch.randint(0, 4, (n,), generator=draws)
    for i, label in enumerate(y.tolist()):
        row, column = 6 * (label // 2), 6 * (label % 2)
        x[i, :, row : row + 6, column : column + 6] += 0.2
    return x.clamp(0, 1), y


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )


NETWORKS = {
    "convolutional": convolutional,
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 4)),
    "tanh": lambda: nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(200, 4)),
}


def train(network, x, y, steps=120):
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-3)
    for step in range(steps):
        rows = torch.arange(step * 64, step * 64 + 64) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def plain():
    x, y = blobs(1024, 0)
    made = {}
    for name, build in NETWORKS.items():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            made[name] = train(build(), x, y)
    return made


@pytest.fixture(scope="module")
def images():
    return blobs(100, 1)


def flagged(*arguments, **more):
    return {finding.name for finding in check(*arguments, **more) if finding.flagged}


@pytest.mark.parametrize("name", NETWORKS)
def test_plain_networks_pass(plain, images, name):
    others = [network for other, network in plain.items() if other != name]
    found = check(plain[name], *images, EPS, others=others)
    assert [finding.name for finding in found] == list(THRESHOLDS)
    assert [finding for finding in found if finding.flagged] == []


class Scaled(nn.Module):
    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x):
        return self.function(self.network, x)


def quantised(network, x):
    return network((x * 8).round() / 8)


def noisy(network, x):
    return network(x + 0.1 * torch.randn_like(x))


@pytest.mark.parametrize(
    ("function", "symptoms"),
    [
        (lambda network, x: 10 * network(x), {"p_is_1", "wrong_direction"}),
        (lambda network, x: network(x).softmax(1), {"softmax_output"}),
        (quantised, {"zero_gradient", "planted_missed"}),
        (noisy, {"not_deterministic"}),
    ],
    ids=["logits", "softmax", "quantised", "noisy"],
)
def test_masked_models_are_flagged(plain, images, function, symptoms):
    assert symptoms <= flagged(Scaled(plain["convolutional"], function), *images, EPS)


def test_steps_that_do_not_reach_the_ball_are_flagged(plain, images):
    def short(model, x, y, eps):
        return pgd(model, x, y, eps, alpha=0.31 * eps / 40, steps=40)

    found = {finding.name: finding for finding in check(plain["convolutional"], *images, 0.05, attack=short)}
    assert found["unreached"].flagged and found["unreached"].value == pytest.approx(0.69, abs=1e-3)


def test_images_out_of_the_ball_are_flagged(plain, images):
    def wide(model, x, y, eps):
        return pgd(model, x, y, eps + 0.02, alpha=0.01, steps=40)

    found = {finding.name: finding for finding in check(plain["dense"], *images, EPS, attack=wide)}
    assert found["out_of_bounds"].flagged and found["out_of_bounds"].value == pytest.approx(0.02, abs=1e-4)


def test_an_attack_in_training_mode_is_flagged_and_the_model_comes_back(images):
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(144, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4)
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        train(network, *blobs(512, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def careless(model, x, y, eps):
        model.train()
        x = x.requires_grad_()
        loss = nn.functional.cross_entropy(model(x), y)
        return (x + eps * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)

    assert "training_mode" in flagged(network, *images, EPS, attack=careless)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert "training_mode" not in flagged(network, *images, EPS)


def test_an_idle_attack_is_flagged_everywhere_it_should_be(plain, images):
    idle = flagged(plain["dense"], *images, EPS, attack=lambda model, x, y, eps: x)
    wanted = {"one_step", "left_at_0.5", "left_at_1", "unreached", "other_loss", "restarts", "black_box"}
    assert wanted | {"loss_not_rising", "random_signs", "planted_missed"} <= idle


def test_images_of_another_model_that_break_more_are_transfer(plain, images):
    def only_others(model, x, y, eps):
        return x if model is plain["dense"] or hasattr(model, "modes") else pgd(model, x, y, eps, 0.01, 40)

    assert "transfer" in flagged(plain["dense"], *images, EPS, attack=only_others, others=[plain["convolutional"]])


def test_a_larger_ball_that_does_worse_is_flagged(plain, images):
    def only_small(model, x, y, eps):
        return pgd(model, x, y, eps, 0.01, 40) if eps < 0.2 else x

    assert "smaller_ball" in flagged(plain["dense"], *images, 0.2, attack=only_small)


def test_findings_are_those_of_the_seed_and_leave_pytorchs_generator(plain, images):
    state = torch.get_rng_state()
    first, again = (check(plain["tanh"], *images, EPS) for _ in range(2))
    np.testing.assert_equal([finding.value for finding in first], [finding.value for finding in again])
    assert torch.equal(torch.get_rng_state(), state) and set(THRESHOLDS) == set(WHY)


def test_what_does_not_fit_is_refused(plain, images):
    x, y = images
    with pytest.raises(ValueError, match="eps must be above 0"):
        check(plain["dense"], x, y, 0.0)
    with pytest.raises(ValueError, match="none of the images right"):
        check(plain["dense"], x, (plain["dense"](x).argmax(1) + 1) % 4, EPS)
    with pytest.raises(ValueError, match="the attack must return images of shape"):
        check(plain["dense"], x, y, EPS, attack=lambda model, x, y, eps: x[:1])
