"""The official archives are read without trust; where they cannot be had, the sets are generated."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from dprobust import mnist_c
from dprobust.corruptions import NAMES
from dprobust.download import File
from dprobust.errors import UserError
from dprobust.study import Run
from dprobust.tables import corruptions as table

N = 3
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 28, 28), np.uint8)


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
    monkeypatch.setattr(mnist_c, "ZENODO", str(tmp_path / "nowhere"))
    return folder


def prepare(tmp_path, source, mirrors=(), pattern=lambda: np.eye(14, dtype=np.float32)):
    mnist_c.prepare(source, IMAGES, pattern, tmp_path / "kept", tmp_path / "out.npz", mirrors)
    with np.load(tmp_path / "out.npz") as sets:
        return dict(sets), json.loads((tmp_path / "out.json").read_text())


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


def test_table_2():
    runs = [Run(), Run(1.3, 1.0)]
    rows = [
        {"run": run.name, "seed": seed, "metric": "accuracy", "corruption": name, "source": "zenodo", "value": value}
        for run, clean in zip(runs, (0.9, 0.7), strict=True)
        for seed in (0, 1)
        for name, value in [("identity", 0.99), *((n, clean + 0.02 * seed) for n in NAMES)]
    ]
    paper = {run.name: dict.fromkeys(NAMES, value) for run, value in zip(runs, (90.0, 75.0), strict=True)}
    paper["sgd"]["fog"] = 59.0
    data, shown = table.make(pd.DataFrame(rows), runs, {"paper": paper})
    assert list(shown["corruption"]) == ["identity", *NAMES, "average of 31", "average of the official 15"]
    fog = data[(data["corruption"] == "fog") & (data["run"] == "sgd")].iloc[0]
    assert tuple(fog[["mean", "min", "max"]]) == pytest.approx((91, 90, 92)) and fog["seeds"] == 2
    read = shown.set_index("corruption")
    assert read.loc["fog", "SGD"] == "91.00 (59.00)" and read.loc["fog", "difference"] == "20.00 (-16.00)"
    assert read.loc["average of 31", "SGD"] == "91.00 (89.00)"
    assert read.loc["average of the official 15", "SGD"] == f"91.00 ({(14 * 90 + 59) / 15:.2f})"
    assert read.loc["identity", "SGD"] == "99.00"
