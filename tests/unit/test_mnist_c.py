"""The official archives are read without trust; where they cannot be had, the sets are generated."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch

from dprobust import arrays
from dprobust.corruptions import NAMES, corrupt
from dprobust.corruptions.pessimal import pessimal_pattern
from dprobust.errors import UserError
from dprobust.materials.mnist_c import make as mnist_c
from dprobust.materials.mnist_c import settings
from dprobust.recipe import Training
from dprobust.sources.file import File

N = 3
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 28, 28), np.uint8)
PATTERN = np.random.default_rng(1).normal(size=(14, 14)).astype(np.float32)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def number(name):
    return np.full((N, 28, 28, 1), NAMES.index(name), np.uint8)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder with two archives in the official layout, and the package told to expect them."""
    folder, expected = tmp_path / "mirror", {}
    folder.mkdir()
    monkeypatch.delenv("DPROBUST_MIRROR", raising=False)
    for (official, names), _ in zip(mnist_c.ARCHIVES.items(), "ab", strict=True):
        path = archive(folder / official.name, {f"mnist_c/{name}/test_images.npy": npy(number(name)) for name in names})
        checksum = hashlib.new(official.algorithm, path.read_bytes()).hexdigest()
        expected[File(official.name, checksum)] = names
    monkeypatch.setattr(mnist_c, "ARCHIVES", expected)
    monkeypatch.setattr(mnist_c, "MIRRORS", (str(tmp_path / "nowhere"),))
    return folder


def prepare(tmp_path, item, mirrors=(), pattern=PATTERN):
    arrays.save(tmp_path / "test.npz", IMAGES, np.zeros(N, np.uint8), 10)
    inputs = {"test": tmp_path / "test.npz", "pattern": tmp_path / "pattern.npz"}
    if pattern is not None:
        np.savez(inputs["pattern"], pattern=pattern)
    mnist_c.make(item, inputs, tmp_path / "kept" / f"{item}.npz", mirrors)
    with np.load(tmp_path / "kept" / f"{item}.npz") as sets:
        return dict(sets), json.loads((tmp_path / "kept" / f"{item}.json").read_text())


@pytest.mark.parametrize("source", ["zenodo", "auto"])
def test_official_archives(mirror, tmp_path, source):
    sets, origins = prepare(tmp_path, source, [str(mirror)], pattern=None)
    assert tuple(sets) == NAMES and set(origins.values()) == {"zenodo"}
    for name in NAMES:
        np.testing.assert_array_equal(sets[name], number(name)[..., 0])


def test_archives_that_are_asked_for_and_cannot_be_had(mirror, tmp_path):
    with pytest.raises(UserError, match=r"mnist_c\.zip.*no mirror gave a good copy"):
        prepare(tmp_path, "zenodo")


@pytest.mark.parametrize("source", ["auto", "generate"])
def test_generated_sets(mirror, tmp_path, monkeypatch, source):
    textures = tmp_path / "frost"
    textures.mkdir()
    files = []
    for i, frost in enumerate(mnist_c.FROST):
        from PIL import Image

        Image.fromarray(np.full((40, 50), 40 * i, np.uint8)).save(textures / frost.name)
        content = (textures / frost.name).read_bytes()
        files.append(File(frost.name, hashlib.sha256(content).hexdigest(), len(content)))
    monkeypatch.setattr(mnist_c, "FROST", tuple(files))
    sets, origins = prepare(tmp_path, source, [str(textures)])
    assert tuple(sets) == NAMES and set(origins.values()) == {"generated, seed 0"}
    np.testing.assert_array_equal(sets["inverse"], 255 - IMAGES)
    expected = corrupt(IMAGES, "pessimal_noise", 0, pattern=PATTERN)
    np.testing.assert_array_equal(sets["pessimal_noise"], expected)
    assert all(array.shape == (N, 28, 28) and array.dtype == np.uint8 for array in sets.values())


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.array([Bomb()], dtype=object)), "pickle"),
        (npy(np.zeros((N, 28, 28, 1), np.float32)), "more than|found float32"),
        (npy(np.zeros((N - 1, 28, 28, 1), np.uint8)), r"found uint8 \(2, 28, 28, 1\)"),
        (npy(np.zeros((N, 28, 28, 1), np.uint8))[:-5], "."),
        (b"not an array", "."),
        (bytes(50_000_000), "more than 3376 bytes"),
    ],
    ids=["pickle", "type", "shape", "cut off", "junk", "bomb"],
)
def test_a_bad_member_is_one_line(tmp_path, content, message):
    path = archive(tmp_path / "a.zip", {"m/x.npy": content})
    with pytest.raises(UserError, match=message) as error:
        mnist_c.read_member(path, "m/x.npy", N)
    assert "a.zip: m/x.npy" in str(error.value) and "\n" not in str(error.value)


def test_members_are_never_written_to_disk(tmp_path):
    """A member that climbs out of the folder stays where it is: only named members are read, into memory."""
    path = archive(tmp_path / "a.zip", {"../evil": b"x", "m/x.npy": npy(IMAGES[..., None])})
    np.testing.assert_array_equal(mnist_c.read_member(path, "m/x.npy", N), IMAGES)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    with pytest.raises(UserError, match="no item named"):
        mnist_c.read_member(path, "m/y.npy", N)


def test_a_damaged_pattern_is_one_line_and_nothing_is_written(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_c, "FROST", ())
    for pattern in (np.zeros((14, 13)), None):
        (tmp_path / "pattern.npz").write_bytes(b"PK junk")
        with pytest.raises(UserError, match=r"pattern\.npz: ") as error:
            prepare(tmp_path, "generate", pattern=pattern)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "kept").exists()


def test_the_pattern_is_sought_on_a_network_trained_as_written(tmp_path, monkeypatch):
    """What goes where; the search has tests of its own (test_pessimal.py)."""
    from torch import nn

    rng, done = np.random.default_rng(0), {}
    for split, n in (("train", 30), ("test", 4)):
        images = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays.save(tmp_path / f"{split}.npz", images, np.arange(n) % 10, 10)

    def build(model, shape, classes, seed):
        done["model"] = (dict(model), tuple(shape), classes, seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def train(model, data, test, training, stream):
        nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(model[1].bias)
        done["training"] = (len(data), len(test), training, stream)

    monkeypatch.setattr(mnist_c, "build", build)
    monkeypatch.setattr(mnist_c, "train", train)
    monkeypatch.setattr(mnist_c, "IMAGES", 20)
    mnist_c.make("pessimal", {s: tmp_path / f"{s}.npz" for s in ("train", "test")}, tmp_path / "pessimal.npz")

    normalize = {"mean": [0.1307], "std": [0.3081]}
    model = {"name": "lenet", "hidden": [500], "normalize": normalize, "init": "default"}
    assert done["model"] == (model, (1, 28, 28), 10, 0)
    recipe = Training(epochs=1, batch_size=64, lr=0.05, momentum=0.5)
    assert done["training"] == (30, 4, recipe, ("pessimal",))
    network = build(model, (1, 28, 28), 10, 0)
    train(network, (), (), None, ())
    first = arrays.load(tmp_path / "train.npz").take(np.arange(20))
    found = arrays.read_npz(tmp_path / "pessimal.npz")
    np.testing.assert_array_equal(found["pattern"], pessimal_pattern(network, first.images[:, 0], first.labels))
    assert found["pattern"].shape == (14, 14) and list(found) == ["pattern"]
    assert json.loads((tmp_path / "pessimal.json").read_text()).keys() == {"pattern"}


def test_settings():
    for item in settings.ITEMS:
        assert settings.inputs(item)["test"] == "data/mnist/test.npz"
    assert "pattern" not in settings.inputs("zenodo") and "train" in settings.inputs("pessimal")
    assert settings.inputs("auto") == settings.inputs("generate")
    assert settings.inputs("generate")["pattern"] == "data/mnist_c/pessimal.npz"
