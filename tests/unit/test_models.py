import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dprobust import models

NORMALIZE = {"mean": [0.1307], "std": [0.3081]}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("hidden", "count"), [([500], 431_080), ([500, 500], 681_580), ([], 33_590 + 10)])
def test_lenet_is_the_papers(hidden, count):
    model = models.build("lenet", hidden=hidden)
    x = torch.rand(3, 1, 28, 28)
    assert model(x).shape == (3, 10)
    expected = 20 * 26 + 50 * 501
    width = 800
    for units in [*hidden, 10]:
        expected += (width + 1) * units
        width = units
    assert parameters(model) == expected
    if hidden:
        assert expected == count


@pytest.mark.parametrize("channels", [(64, 64), (4, 6)])
def test_cifarnet_is_the_papers(channels):
    """ReLU before the pooling, as the paper has it, is the same function."""
    model = models.build("cifarnet", channels=channels, hidden=[500, 500])
    first, second = channels
    expected = first * 28 + second * (9 * first + 1) + (25 * second + 1) * 500 + 501 * 500 + 501 * 10
    assert parameters(model) == expected
    x = torch.rand(3, 3, 32, 32)
    y = x
    for conv in (model.conv1, model.conv2):
        y = F.max_pool2d(conv(y).relu(), 3, 2)
    y = y.flatten(1)
    for layer in (model.fc1, model.fc2):
        y = layer(y).relu()
    assert torch.equal(model(x), model.logits(y))


@pytest.mark.parametrize("name", ["lenet", "cifarnet"])
def test_features_and_head_are_the_network(name, tmp_path):
    shape = (1, 28, 28) if name == "lenet" else (3, 32, 32)
    normalize = {"mean": [0.4] * shape[0], "std": [0.2] * shape[0]}
    settings = {"name": name, "hidden": [20], "normalize": normalize}
    model, other = (models.build(**settings, seed=seed) for seed in (1, 2))
    features, head = models.split(model)
    images = torch.randint(256, (7, *shape), dtype=torch.uint8)
    computed = models.compute_features(features, images, batch_size=3)
    torch.testing.assert_close(head(computed), model(models.unit(images)))
    assert not any(isinstance(layer, nn.Conv2d) for layer in head) and computed.ndim == 2

    models.save(features, tmp_path / "features.safetensors")
    models.load_features(other, tmp_path / "features.safetensors")
    assert torch.equal(other.conv2.weight, model.conv2.weight) and not torch.equal(other.fc1.weight, model.fc1.weight)
    assert {n for n, p in other.named_parameters() if p.requires_grad} == {
        n for n, _ in models.split(other)[1].named_parameters()
    }


def test_dropout_is_in_the_head():
    model = models.build("cifarnet", hidden=[9, 9], dropout=0.3, classes=100)
    features, head = models.split(model)
    assert [type(layer).__name__ for layer in head] == ["Dropout", "Linear", "ReLU"] * 2 + ["Linear"]
    assert not any(isinstance(layer, nn.Dropout) for layer in features) and model.logits.out_features == 100


def test_normalisation_is_inside():
    plain = models.build("lenet", seed=3)
    normalised = models.build("lenet", NORMALIZE, seed=3)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(normalised(x), plain((x - 0.1307) / 0.3081))


def test_seed_alone_decides_and_global_generator_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = (models.build("lenet", seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])


@pytest.mark.parametrize(("init", "bound"), [("xavier", (6 / 1300) ** 0.5), ("kaiming", (6 / 800) ** 0.5)])
def test_initialisation(init, bound):
    layer = models.build("lenet", init=init).fc1
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any()


def test_save_and_load(tmp_path):
    settings = {"name": "lenet", "normalize": NORMALIZE, "hidden": [20]}
    model = models.build(**settings, seed=9).to(memory_format=torch.channels_last)
    models.save(model, tmp_path / "a.safetensors")
    models.save(model, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = models.load(tmp_path / "a.safetensors", settings)
    x = torch.rand(4, 1, 28, 28)
    assert not loaded.training
    torch.testing.assert_close(loaded(x), model.eval()(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        models.load(tmp_path / "a.safetensors", settings | {"hidden": [21]})


def test_no_layer_keeps_hooks_or_mixes_examples():
    model = models.build("lenet", NORMALIZE).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))
