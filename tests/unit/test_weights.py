import copy
import json
import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from helpers import ROOT
from torch import nn

from dprobust import weights
from dprobust.attacks import fgsm
from dprobust.curvature import input_hessian_eigenvalues
from dprobust.distances import boundary_distance
from dprobust.errors import UserError
from dprobust.inference import at_rest, predict
from dprobust.models import networks as models

NORMALIZE = {"mean": [0.1307], "std": [0.3081]}
SHAPE, CLASSES = (1, 28, 28), 10
SETTINGS = {"name": "small_cnn", "channels": [4, 6], "hidden": [8]}
BATCH = ({0: torch.export.Dim("batch", min=1)},)

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")


def network(**settings):
    return models.build(SETTINGS | settings, SHAPE, CLASSES, seed=1).eval()


def images(n=5):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def load(path, **settings):
    return weights.load(path, SETTINGS | settings, SHAPE, CLASSES)


def script(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(path)


def trace(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, images()).save(path)


def freeze(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.script(model)).save(path)


def export(model, path, dynamic_shapes=BATCH, n=5):
    with path.with_suffix(".pt2").open("wb") as file:
        torch.export.save(torch.export.export(model, (images(n),), dynamic_shapes=dynamic_shapes), file)
    path.with_suffix(".pt2").rename(path)


def refused(path, told, **settings):
    with pytest.raises(UserError, match=told) as caught:
        load(path, **settings)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


PROGRAMS = {"script": script, "trace": trace, "freeze": freeze, "export": export}


# Tensors.


def test_what_the_study_saved_loads_as_it_is(tmp_path):
    """Its normalisation is among the tensors and takes the place of that of the settings."""
    model, path = network(normalize=NORMALIZE), tmp_path / "weights.bin"
    models.save(model, path)
    for settings in ({"normalize": NORMALIZE}, {"normalize": None}, {"normalize": {"mean": [0.5], "std": [0.5]}}):
        assert torch.equal(load(path, **settings)(images()), model(images()))
    assert not load(path).training


@pytest.mark.parametrize("prefix", ["", "_module.", "module.", "_module.module.", "_orig_mod._module.", "model."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model", "model_state_dict", "module_state_dict"])
@pytest.mark.parametrize("new", [True, False])
def test_state_dicts(prefix, inside, new, tmp_path):
    model, path = network(), tmp_path / "anything.txt"
    state = {prefix + name: value for name, value in model.state_dict().items()}
    saved = {inside: state, "epoch": 3, "optimizer": {"state": {}}} if inside else state
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    assert torch.equal(load(path)(images()), model(images()))
    normalised = load(path, normalize=NORMALIZE)
    torch.testing.assert_close(normalised(images()), model((images() - 0.1307) / 0.3081))


def test_state_dicts_of_other_types_become_float32(tmp_path):
    model, path = network(), tmp_path / "a.pt"
    torch.save(copy.deepcopy(model).double().state_dict(), path)
    assert torch.equal(load(path)(images()), model(images()))
    torch.save(copy.deepcopy(model).half().state_dict(), path)
    loaded = load(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded(images()), model(images()), rtol=0.01, atol=0.01)


def test_a_state_dict_of_a_network_of_torchvision(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    theirs, path = squeezenet1_1(num_classes=4).eval(), tmp_path / "a.pt"
    torch.save(theirs.state_dict(), path)
    settings = {"name": "torchvision:squeezenet1_1", "normalize": {"mean": [0.5], "std": [0.5]}}
    x = torch.rand(2, 1, 40, 40)
    loaded = weights.load(path, settings, (1, 40, 40), 4)
    torch.testing.assert_close(loaded(x), theirs(((x - 0.5) / 0.5).repeat(1, 3, 1, 1)))


def test_tensors_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({f"_module.{name}": value for name, value in network(hidden=[9]).state_dict().items()}, path)
    refused(
        path, r"\(small_cnn\): fc1.weight is \(9 x 96\), the network's \(8 x 96\), fc1.bias is \(9\), .* \(8\), logits"
    )
    torch.save({"features.0.weight": torch.zeros(4, 1, 8, 8)}, path)
    refused(
        path, r"missing conv1.weight \(4 x 1 x 8 x 8\), .* and 5 more; unexpected features.0.weight \(4 x 1 x 8 x 8\)$"
    )


def test_tensors_that_are_no_weights_are_refused(tmp_path):
    state, path = network().state_dict(), tmp_path / "a.pt"
    torch.save(state | {"fc1.bias": torch.full((8,), float("nan"))}, path)
    refused(path, "fc1.bias is not finite")
    quantised = torch.quantize_per_tensor(state["fc1.weight"], 0.1, 0, torch.qint8)
    torch.save(state | {"fc1.weight": quantised}, path)
    refused(path, "fc1.weight is quantised")
    torch.save({"epoch": 3, "weights": state}, path)
    refused(path, "not a state_dict: epoch is a int; a checkpoint keeps it under one of state_dict, ")
    torch.save([1, 2], path)
    refused(path, "holds a list, expected a state_dict")
    torch.save({}, path)
    refused(path, "holds a dict, expected a state_dict")
    torch.save({name: torch.zeros_like(value) for name, value in state.items()}, path)
    refused(path, "the gradient with respect to the images is 0 everywhere")


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("new", [True, False])
def test_no_pickle_is_run(new, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(network(), path, _use_new_zipfile_serialization=new)
    refused(
        path, r"holds Python objects \(torch.nn.modules.container.Sequential\), .* torch.save\(model.state_dict\(\)"
    )
    torch.save(network().state_dict() | {"x": Evil(f"touch {tmp_path}/run")}, path, _use_new_zipfile_serialization=new)
    refused(path, r"holds Python objects \(posix.system\)")
    assert not (tmp_path / "run").exists()


# Programs.


@pytest.mark.parametrize("kind", list(PROGRAMS))
@pytest.mark.parametrize("normalize", [None, NORMALIZE])
def test_programs_are_models_like_any_other(kind, normalize, tmp_path):
    model, path = network(), tmp_path / "anything.txt"
    PROGRAMS[kind](model, path)
    loaded, ours = load(path, normalize=normalize), network(normalize=normalize)
    x, y = images(), torch.arange(5)
    torch.testing.assert_close(loaded(x), ours(x))
    loaded.train()
    torch.testing.assert_close(loaded(x), ours(x))
    loaded = loaded.to(memory_format=torch.channels_last).eval()
    with at_rest(loaded):
        assert not any(p.requires_grad for p in loaded.parameters())
        torch.testing.assert_close(loaded(x), ours(x))
    assert bool(list(loaded.parameters())) == (kind != "freeze")
    assert torch.equal(predict(loaded, x, batch_size=2), predict(ours, x))
    torch.testing.assert_close(fgsm(loaded, x, y, 0.1), fgsm(ours, x, y, 0.1))
    torch.testing.assert_close(boundary_distance(loaded, x, y, "l2"), boundary_distance(ours, x, y, "l2"))
    torch.testing.assert_close(models.with_temperature(loaded, 2.0)(x), ours(x) / 2)


@pytest.mark.parametrize("kind", ["script", "trace", "export"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_programs_compute_in_float64(kind, activation, tmp_path):
    model, path = network(activation=activation), tmp_path / "a"
    PROGRAMS[kind](model, path)
    loaded, x, y = load(path), images(2), torch.tensor([3, 4])
    twin = copy.deepcopy(loaded).double()
    torch.testing.assert_close(twin(x.double()), copy.deepcopy(model).double()(x.double()), rtol=1e-12, atol=1e-12)
    assert loaded(x).dtype == torch.float32 and {p.dtype for p in loaded.parameters()} == {torch.float32}
    found, expected = (input_hessian_eigenvalues(m, x, y, 4) for m in (loaded, model))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class Casts(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        return self.network(x.float())


class Returns32(Casts):
    def forward(self, x):
        return self.network(x).float()


@pytest.mark.parametrize(
    ("model", "kind"), [(network, "freeze"), (Casts, "script"), (Casts, "export"), (Returns32, "trace")]
)
def test_programs_that_cannot_compute_in_float64_say_so(model, kind, tmp_path):
    PROGRAMS[kind](model().eval(), tmp_path / "a")
    with pytest.raises(UserError, match=r"/a: cannot compute in float64 \(.*\); give its state_dict") as caught:
        input_hessian_eigenvalues(load(tmp_path / "a"), images(2), torch.tensor([3, 4]), 4)
    assert "\n" not in str(caught.value)


class Views(nn.Module):
    """Code that takes contiguous tensors only."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 5), nn.Linear(2304, 10)

    def forward(self, x):
        return self.fc(self.conv(x).view(-1, 2304))


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_programs_that_view_their_tensors_are_kept_contiguous(kind, tmp_path):
    model = Views().eval()
    PROGRAMS[kind](model, tmp_path / "a")
    loaded = load(tmp_path / "a").to(memory_format=torch.channels_last)
    x = images().to(memory_format=torch.channels_last)
    torch.testing.assert_close(loaded(x), model(images()))


@pytest.mark.parametrize("n", [1, 5])
def test_a_fixed_batch_size_says_how_to_export(n, tmp_path):
    export(network(), tmp_path / "a", None, n)
    refused(
        tmp_path / "a", r"takes batches of a fixed size only; export it with a dynamic batch dimension, dynamic_shapes"
    )


def test_programs_for_other_images_are_refused(tmp_path):
    for kind, program in PROGRAMS.items():
        path = tmp_path / kind
        program(network(), path)
        with pytest.raises(UserError, match=rf"{kind}: does not take images of 1 x 1 x 32 x 32 \(\w+: .*\)$"):
            weights.load(path, SETTINGS, (1, 32, 32), 10)
        with pytest.raises(UserError, match=rf"{kind}: returns float32 \(1, 10\) .*, expected float logits \(1, 11\)$"):
            weights.load(path, SETTINGS, SHAPE, 11)


class Applied(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.network, self.kind, self.dropout = network(), kind, nn.Dropout(0.5)

    def forward(self, x):
        if self.kind == "softmax":
            return self.network(x).softmax(1)
        if self.kind == "detached":
            return self.network(x).detach()
        if self.kind == "thresholded":
            return self.network((x > 0.5).float())
        if self.kind == "rounded":
            return self.network(x.round())
        if self.kind == "dropout":
            return self.network(torch.nn.functional.dropout(x, 0.5, True))
        if self.kind == "statistics":
            return self.network(x - x.mean(0))
        if self.kind == "log":
            return (self.network(x) * 0 - 1).log()
        return self.network(x).log_softmax(1)


@pytest.mark.parametrize("kind", ["trace", "export"])
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("softmax", "returns probabilities, whose gradients vanish where it is confident; leave out the softmax"),
        ("detached", "no gradient reaches the images; quantised, detached or thresholded"),
        ("thresholded", "no gradient reaches the images"),
        ("rounded", "the gradient with respect to the images is 0 everywhere"),
        ("dropout", "gives other logits for the same images each time; export it in evaluation mode"),
        ("statistics", "the logits of an image depend on the other images of its batch"),
        ("log", "logits are not finite"),
    ],
)
def test_programs_that_no_metric_can_use_are_refused(kind, what, told, tmp_path):
    PROGRAMS[kind](Applied(what).eval(), tmp_path / "a")
    refused(tmp_path / "a", told)


def test_log_probabilities_are_logits(tmp_path):
    export(Applied("log_softmax").eval(), tmp_path / "a")
    assert load(tmp_path / "a")(images()).exp().sum(1).allclose(torch.ones(5))


def test_a_network_that_was_exported_in_training_mode_is_refused(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10)).train()
    export(model, tmp_path / "a")
    refused(tmp_path / "a", "gives other logits .* export it in evaluation mode")
    script(model, tmp_path / "b")
    torch.testing.assert_close(load(tmp_path / "b")(images()), model.eval()(images()))


def rewritten(path, edit):
    """The zip file with its members changed by edit(name without its folder, bytes) -> bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, edit(name.partition("/")[2], data))


def test_exported_programs_with_pickles_are_refused(tmp_path):
    path = tmp_path / "a"
    export(network(), path)

    def pickled(name, data):
        if name == "data/weights/model_weights_config.json":
            config = json.loads(data)
            config["config"]["conv1.weight"]["use_pickle"] = True
            return json.dumps(config)
        return data

    rewritten(path, pickled)
    refused(path, "conv1.weight is a pickled object, which could run code")

    path.unlink()
    export(network(), path)
    evil = tmp_path / "evil.pt"
    torch.save(Evil(f"touch {tmp_path}/run"), evil)
    rewritten(path, lambda name, data: evil.read_bytes() if name.startswith("data/sample_inputs/") else data)
    refused(path, "its sample inputs is a pickled object|sample inputs")
    assert not (tmp_path / "run").exists()


# Files of other kinds.


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither safetensors, nor a file of torch.save"),
        (b"not a network\n", "neither safetensors, nor a file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself: git lfs pull"),
        (b"PK\x03\x04 and no more", "damaged .*; get the file again"),
        (b"\x80\x02 and no more", "holds more than tensors|damaged"),
        ((300).to_bytes(8, "little") + b"{" + b" " * 299, "not a whole safetensors file"),
    ],
)
def test_other_files_are_one_line(content, told, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    refused(path, told)


def test_other_archives_and_missing_files_are_one_line(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    refused(path, "a zip file, but not of torch.save")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    refused(path, "exported by torch 2.7 or older; export it again")
    refused(tmp_path / "none", r"cannot be read \(No such file or directory\)")
    refused(tmp_path, r"cannot be read \(Is a directory\)")


@pytest.mark.parametrize("kind", ["state_dict", *PROGRAMS])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_cut_files_are_one_line(kind, share, tmp_path):
    path = tmp_path / "a"
    if kind == "state_dict":
        torch.save(network().state_dict(), path)
    else:
        PROGRAMS[kind](network(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "damaged")


EXAMPLES = ROOT / "examples" / "my-models"


@pytest.mark.parametrize(
    ("file", "accuracy"),
    [
        ("sgd.safetensors", 0.9870),
        ("dpsgd_state_dict.pt", 0.9729),
        ("dpsgd_torchscript.pt", 0.9721),
        ("dpsgd_exported.pt2", 0.9722),
    ],
)
def test_the_examples_are_what_they_say(file, accuracy):
    path, data = EXAMPLES / file, ROOT / "data" / "mnist" / "test.npz"
    content = path.read_bytes()
    assert len(content) < 150_000 and b"site-packages" not in content and b"forward(" not in content.split(b"code/")[0]
    model = weights.load(path, {"name": "small_cnn"}, SHAPE, CLASSES)
    if not data.exists():
        pytest.skip("no data/mnist/test.npz")
    with np.load(data) as arrays:
        x, y = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    found = predict(model, models.unit(x.view(-1, *SHAPE)), 1000)
    assert (found == y).double().mean().item() == pytest.approx(accuracy, abs=5e-4)
    assert (
        f"| {file} |" in (EXAMPLES / "README.md").read_text()
        and f"{100 * accuracy:.2f} %" in (EXAMPLES / "README.md").read_text()
    )
