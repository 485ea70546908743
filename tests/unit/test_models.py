import hashlib
import subprocess
import sys
from typing import get_args

import pytest
import torch
from helpers import ROOT
from torch import nn
from torch.nn import functional as F

from dprobust import engines
from dprobust.errors import UserError
from dprobust.fingerprint import reached
from dprobust.inference import at_rest
from dprobust.models import networks as models
from dprobust.models import settings as model_settings
from dprobust.models.settings import FactoryModel, ModelSettings
from dprobust.settings import Facts

NORMALIZE = {"mean": [0.1307], "std": [0.3081]}
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
CIFAR_NORMALIZE = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}
ARCHITECTURES = {"lenet": MNIST, "cifarnet": CIFAR, "small_cnn": MNIST}


def lenet(seed=0, dropout=0.0, classes=10, shape=MNIST, **settings):
    return models.build({"name": "lenet", **settings}, shape, classes, seed, dropout)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("hidden", "count"), [([500], 431_080), ([500, 500], 681_580), ([], 33_590 + 10)])
def test_lenet_is_the_papers(hidden, count):
    model = lenet(hidden=hidden)
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


@pytest.mark.parametrize("channels", [[64, 64], [4, 6]])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_cifarnet_is_the_papers(channels, activation, pooling):
    """The activation before the pooling, as the paper has it, is the same function."""
    settings = {"name": "cifarnet", "channels": channels, "hidden": [500, 500]}
    model = models.build(settings | {"activation": activation, "pooling": pooling}, CIFAR, 10)
    first, second = channels
    expected = first * 28 + second * (9 * first + 1) + (25 * second + 1) * 500 + 501 * 500 + 501 * 10
    assert parameters(model) == expected
    rise, pool = getattr(torch, activation), {"max": F.max_pool2d, "avg": F.avg_pool2d}[pooling]
    x = torch.rand(3, 3, 32, 32)
    y = x
    for conv in (model.conv1, model.conv2):
        y = pool(rise(conv(y)), 3, 2)
    y = y.flatten(1)
    for layer in (model.fc1, model.fc2):
        y = rise(layer(y))
    assert torch.equal(model(x), model.logits(y))


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_lenet_by_functions(pooling):
    model = lenet(activation="tanh", pooling=pooling)
    pool = {"max": F.max_pool2d, "avg": F.avg_pool2d}[pooling]
    x = y = torch.rand(3, 1, 28, 28)
    for conv in (model.conv1, model.conv2):
        y = pool(conv(y).tanh(), 2)
    assert torch.equal(model(x), model.logits(model.fc1(y.flatten(1)).tanh()))


@pytest.mark.parametrize("padding", [2, 3])
def test_small_cnn_is_that_of_papernot_and_of_tramer(padding):
    """26,010 parameters; with a padding of 2 the layers of Tramer and Boneh's code."""
    model = models.build({"name": "small_cnn", "padding": padding}, MNIST, 10)
    assert parameters(model) == 26_010
    theirs = nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, padding),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )
    theirs.load_state_dict(dict(zip(theirs.state_dict(), model.state_dict().values(), strict=True)))
    x = torch.rand(5, 1, 28, 28)
    assert torch.equal(model(x), theirs(x))


@pytest.mark.parametrize(
    ("settings", "how", "digest"),
    [
        ({"name": "lenet"}, {}, "713c69aa5947afdc"),
        ({"name": "lenet", "normalize": NORMALIZE, "hidden": [500, 500]}, {"seed": 3}, "f926a28b29d1aa49"),
        ({"name": "lenet", "init": "xavier", "channels": [4, 6]}, {"seed": 7}, "1f2788da074fa3c9"),
        ({"name": "lenet", "init": "kaiming"}, {"seed": 7}, "9241128df6a76c9e"),
        ({"name": "cifarnet"}, {}, "5fb96c4978b79f46"),
        (
            {"name": "cifarnet", "hidden": [9, 9], "channels": [4, 6], "init": "xavier"},
            {"seed": 5, "dropout": 0.3, "classes": 100},
            "e46bb6fad29714fe",
        ),
        ({"name": "cifarnet", "normalize": CIFAR_NORMALIZE}, {"seed": 11}, "3662eec18b598b5d"),
    ],
    ids=str,
)
def test_names_and_initial_weights_stay(settings, how, digest):
    """Hashes of names and bytes: trained models stay readable, and a seed means the same network."""
    how = {"classes": 10} | how
    found = hashlib.sha256()
    for name, value in models.build(settings, ARCHITECTURES[settings["name"]], **how).state_dict().items():
        found.update(name.encode() + value.numpy().tobytes())
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_features_and_head_are_the_network(name, tmp_path):
    shape = ARCHITECTURES[name]
    normalize = {"mean": [0.4] * shape[0], "std": [0.2] * shape[0]}
    settings = {"name": name, "hidden": [20], "normalize": normalize}
    model, other = (models.build(settings, shape, 10, seed) for seed in (1, 2))
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


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_widths_come_from_images_and_classes(name):
    for shape in ((1, 28, 28), (3, 32, 32), (2, 40, 23)):
        model = models.build({"name": name}, shape, 7)
        assert model(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(("name", "least"), [("lenet", 16), ("cifarnet", 13), ("small_cnn", 14)])
def test_images_that_are_too_small_are_one_line(name, least):
    assert models.build({"name": name}, (1, least, least), 10)(torch.rand(1, 1, least, least)).shape == (1, 10)
    with pytest.raises(
        UserError, match=rf"^model: {name} takes images of {least} x {least} pixels or more, found 40 x"
    ):
        models.build({"name": name}, (1, 40, least - 1), 10)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "lenett"}, r"^model: there is no architecture 'lenett'; did you mean 'lenet'\? \(known: cifarnet, "),
        ({"name": "settings"}, "there is no architecture 'settings'"),
        ({}, "there is no architecture ''"),
        ({"name": "lenet", "hidden": [0]}, r"^model.hidden\[0\]: found 0: "),
        ({"name": "lenet", "hidden": [10**9]}, r"^model.hidden\[0\]: "),
        ({"name": "lenet", "channels": [1]}, r"^model.channels: "),
        ({"name": "lenet", "padding": 1}, r"^model: unknown key 'padding'"),
        ({"name": "lenet", "init": "zero"}, r"^model.init: found 'zero': "),
        ({"name": "lenet", "activation": "elu"}, r"^model.activation: found 'elu': .*tanh"),
        ({"name": "lenet", "normalize": {"mean": [0.1], "std": [0.0]}}, r"^model.normalize.std\[0\]: "),
        ({"name": "lenet", "normalize": CIFAR_NORMALIZE}, "^model: normalize.mean: 3 values, but .* 1 channels"),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line(settings, told):
    with pytest.raises(UserError, match=told) as caught:
        models.build(settings, MNIST, 10)
    assert "\n" not in str(caught.value)


def test_dropout_is_in_the_head():
    model = models.build({"name": "cifarnet", "hidden": [9, 9]}, CIFAR, 100, dropout=0.3)
    features, head = models.split(model)
    assert [type(layer).__name__ for layer in head] == ["Dropout", "Linear", "ReLU"] * 2 + ["Linear"]
    assert not any(isinstance(layer, nn.Dropout) for layer in features) and model.logits.out_features == 100


def test_normalisation_is_inside():
    plain, normalised = lenet(3), lenet(3, normalize=NORMALIZE)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(normalised(x), plain((x - 0.1307) / 0.3081))


def test_seed_alone_decides_and_global_generator_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = (lenet(seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])


@pytest.mark.parametrize(("init", "bound"), [("xavier", (6 / 1300) ** 0.5), ("kaiming", (6 / 800) ** 0.5)])
def test_initialisation(init, bound):
    layer = lenet(init=init).fc1
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any()


def test_initialisations_are_those_of_the_settings():
    assert get_args(ModelSettings.model_fields["init"].annotation) == tuple(models.INITIALISATIONS)


def test_save_and_load(tmp_path):
    settings = {"name": "lenet", "normalize": NORMALIZE, "hidden": [20]}
    model = models.build(settings, MNIST, 10, seed=9).to(memory_format=torch.channels_last)
    models.save(model, tmp_path / "a.safetensors")
    models.save(model, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = models.load(tmp_path / "a.safetensors", settings, MNIST, 10)
    x = torch.rand(4, 1, 28, 28)
    assert not loaded.training
    torch.testing.assert_close(loaded(x), model.eval()(x))


def test_a_damaged_or_foreign_file_is_one_line(tmp_path):
    settings, path = {"name": "lenet", "hidden": [20]}, tmp_path / "a.safetensors"
    models.save(lenet(hidden=[20]), path)
    told = r"a.safetensors: does not fit .*: fc1.weight is \(20 x 800\), the network's \(21 x 800\)"
    with pytest.raises(UserError, match=told):
        models.load(path, settings | {"hidden": [21]}, MNIST, 10)
    with pytest.raises(UserError, match=r"missing fc2.weight \(5 x 20\), fc2.bias \(5\); logits.weight is"):
        models.load(path, settings | {"hidden": [20, 5]}, MNIST, 10)
    with pytest.raises(UserError, match=r"unexpected fc1.bias \(20\), fc1.weight \(20 x 800\)"):
        models.load(path, settings | {"hidden": []}, MNIST, 10)
    with pytest.raises(
        UserError, match=r"unexpected fc1.bias \(20\), fc1.weight \(20 x 800\), logits.bias .* and 1 more"
    ):
        models.load_features(lenet(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="a.safetensors: not a whole safetensors file"):
        models.load(path, settings, MNIST, 10)


def test_no_layer_keeps_hooks_or_mixes_examples():
    model = lenet(normalize=NORMALIZE).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


def test_temperature_divides_the_logits():
    model, x = lenet().eval(), torch.rand(3, 1, 28, 28)
    assert models.with_temperature(model, 1) is model and models.with_temperature(model, 1.0) is model
    cooled = models.with_temperature(model, 4.0)
    assert torch.equal(cooled(x), model(x) / 4) and not cooled.training
    assert models.with_temperature(model.train(), 4.0).training
    with pytest.raises(ValueError, match="must be > 0"):
        models.with_temperature(model, 0.0)


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_fused_engine_clips_every_network_as_torch_func_does(name, activation, pooling, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("the fused engine has a rule for every layer")

    shape = ARCHITECTURES[name]
    settings = {"name": name, "channels": [5, 7], "hidden": [11], "activation": activation, "pooling": pooling}
    normalize = {"mean": [0.4] * shape[0], "std": [0.2] * shape[0]}
    model = models.build(settings | {"normalize": normalize}, shape, 10, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(9, *shape, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (9,), generator=generator)
    expected, norms = engines.FunctionalEngine(model)(x, y, 1e9)
    clip = norms.median().item()  # some gradients are clipped, some are not
    expected, norms = engines.FunctionalEngine(model)(x, y, clip)
    monkeypatch.setattr(engines.FunctionalEngine, "_clipped_sum", refuse)
    found, lengths = engines.clipped_gradient_sum(model, x, y, clip)
    torch.testing.assert_close(lengths, norms, rtol=1e-9, atol=1e-12)
    for parameter in expected:
        torch.testing.assert_close(found[parameter], expected[parameter], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_quick_passes_at_rest_change_no_gradient(name, activation, pooling):
    shape = ARCHITECTURES[name]
    model = models.build({"name": name, "activation": activation, "pooling": pooling}, shape, 10).double().eval()
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    weights = torch.linspace(-1, 1, 10, dtype=torch.float64)

    def gradient():
        return torch.autograd.grad((model(x) * weights).sum(), x)[0]

    expected = gradient()
    with at_rest(model):
        torch.testing.assert_close(gradient(), expected, rtol=1e-10, atol=1e-12)


# Where the code is.


def test_settings_need_no_torch():
    code = (
        "import sys; from dprobust.models.settings import names, settings_class\n"
        "for name in [*names(), 'torchvision:resnet18', 'a.b:c']: settings_class(name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_names_and_classes():
    assert model_settings.names() == ["cifarnet", "lenet", "small_cnn"]
    for name in model_settings.names():
        settings = model_settings.settings_class(name)()
        assert settings.name == name and all(field.description for field in type(settings).model_fields.values())
        settings.fits(Facts())
    assert model_settings.settings_class("torchvision:resnet18") is FactoryModel
    assert model_settings.code("torchvision:resnet18") == ["dprobust.models.factory"]
    assert model_settings.code("my.nets:make") == ["dprobust.models.factory", "my.nets"]


def folders(*roots):
    """Folders and modules of dprobust/models that the code of these roots reaches."""
    modules = (entry.partition(":")[0].split(".") for entry in reached(*roots))
    return {parts[2] for parts in modules if parts[:2] == ["dprobust", "models"] and len(parts) > 2}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_code_of_an_architecture_reaches_no_other(name):
    roots = model_settings.code(name)
    assert folders(*roots) == {name, "parts", "settings"}
    assert {f"dprobust.models.{name}.settings:Model", f"dprobust.models.{name}.build:layers"} < {*reached(*roots)}


@pytest.mark.parametrize("stage", ["train", "pretrain", "features"])
def test_what_trains_reaches_no_architecture(stage):
    """A training's fingerprint holds the architecture in use, and what builds every network, but no other."""
    assert folders(str(ROOT / "workflow" / "scripts" / f"{stage}.py")) == {"networks", "settings"}


def test_an_extension_adds_an_architecture(tmp_path, monkeypatch):
    folder = tmp_path / "a_lab" / "models" / "linear"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "settings.py").write_text(
        "from typing import Literal\nfrom dprobust.models.settings import ModelSettings\n"
        "class Model(ModelSettings):\n    name: Literal['linear'] = 'linear'\n    bias: bool = True\n"
    )
    (folder / "build.py").write_text(
        "import math\nfrom collections import OrderedDict\nfrom torch import nn\n"
        "def layers(settings, shape, classes, dropout=0.0):\n"
        "    logits = nn.Linear(math.prod(shape), classes, settings.bias)\n"
        "    return OrderedDict(flatten=nn.Flatten(), logits=logits)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model_settings, "FOLDERS", [*model_settings.FOLDERS, "a_lab.models"])
    assert model_settings.names()[-1] == "linear" and model_settings.code("linear")[0] == "a_lab.models.linear.build"
    model = models.build({"name": "linear", "bias": False}, MNIST, 10)
    assert parameters(model) == 7840 and model(torch.rand(2, *MNIST)).shape == (2, 10)
