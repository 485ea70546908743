import sys

import pytest
import torch

from dprobust.errors import UserError
from dprobust.models import networks as models

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def test_a_network_of_torchvision_takes_grey_and_colour_images():
    settings = {"name": "torchvision:squeezenet1_1", "normalize": {"mean": [0.5], "std": [0.25]}}
    model = models.build(settings, (1, 40, 40), 7, seed=1).eval()
    assert [name for name, _ in model.named_children()] == ["normalize", "expand", "model"]
    x = torch.rand(2, 1, 40, 40)
    colour = ((x - 0.5) / 0.25).repeat(1, 3, 1, 1)
    torch.testing.assert_close(model(x), model.model(colour))
    again = models.build({"name": settings["name"], "settings": {"dropout": 0.2}}, (3, 40, 40), 7, seed=1).eval()
    assert [name for name, _ in again.named_children()] == ["model"] and again.model.classifier[0].p == 0.2
    torch.testing.assert_close(again(colour), model(x))


FACTORIES = """
import torch
from torch import nn

CALLS = []

def plain(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Tanh(), nn.Linear(width, 10))

def fitting(shape, classes, width=5):
    CALLS.append((shape, classes))
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

class Views(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 5), nn.Linear(2304, 10)
    def forward(self, x):
        return self.fc(self.conv(x).view(-1, 2304))

def fails():
    raise KeyError("no such thing")

def number():
    return 3

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

def probabilities():
    return nn.Sequential(plain(5), nn.Softmax(1))

def twelve():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 12))

def statistics():
    class Mixed(nn.Module):
        def forward(self, x):
            x = x.flatten(1)[:, :10]
            return x - x.mean(0)
    return Mixed()

def noisy():
    class Noisy(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] + torch.rand(1)
    return Noisy()
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_factories", None)


def test_factories_get_what_they_take(factories):
    def made(name, **settings):
        return models.build({"name": f"my_factories:{name}", "settings": settings}, MNIST, 10, seed=3)

    assert made("plain", width=6).model[1].out_features == 6
    assert made("fitting").model[1].out_features == 10
    import my_factories

    assert my_factories.CALLS == [(MNIST, 10)]
    assert torch.equal(made("plain", width=6).model[1].weight, made("plain", width=6).model[1].weight)
    assert made("fitting").training
    views = made("Views").to(memory_format=torch.channels_last).eval()
    x = torch.rand(3, 1, 28, 28).to(memory_format=torch.channels_last)
    network = views.model.network
    torch.testing.assert_close(views(x), network.fc(network.conv(x.contiguous()).reshape(3, -1)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fails", "the factory fails .KeyError: 'no such thing'"),
        ("plain", "the factory fails .TypeError: .*width"),
        ("number", "the factory returns a int, expected a torch.nn.Module"),
        ("pair", r"returns a tuple, expected logits \(1, 10\)"),
        ("probabilities", "returns probabilities, .*leave out the softmax"),
        ("twelve", r"returns float32 \(1, 12\) for images 1 x 1 x 28 x 28, expected float logits \(1, 10\)"),
        ("statistics", "the logits of an image depend on the other images of its batch"),
        ("noisy", "gives other logits for the same images each time"),
        ("nothing", "the module my_factories has no function 'nothing'"),
    ],
)
def test_factories_that_do_not_fit_are_one_line(name, told, factories):
    with pytest.raises(
        UserError, match=f"^model my_factories:{name}: {told}|^model my_factories:{name}: .*{told}"
    ) as caught:
        models.build({"name": f"my_factories:{name}"}, MNIST, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "how", "told"),
    [
        ("torchvision:resnet19", CIFAR, {}, "torchvision has no network 'resnet19' .*did you mean 'resnet18'"),
        ("torchvision:resnet18", (2, 32, 32), {}, "takes grey or colour images, found 2 channels"),
        ("torchvision:alexnet", CIFAR, {}, r"does not take images of 1 x 3 x 32 x 32 \(RuntimeError: "),
        ("torchvision:resnet18", CIFAR, {"dropout": 0.5}, "cannot be given dropout"),
        ("no_such_module:make", CIFAR, {}, "there is no module 'no_such_module'"),
    ],
)
def test_networks_that_cannot_be_made_are_one_line(name, shape, how, told):
    with pytest.raises(UserError, match=told) as caught:
        models.build({"name": name}, shape, 10, **how)
    assert "\n" not in str(caught.value)


def test_a_network_without_flatten_has_no_features(factories):
    with pytest.raises(UserError, match="pretraining: .*no layer named flatten"):
        models.split(models.build({"name": "my_factories:fitting"}, MNIST, 10))
