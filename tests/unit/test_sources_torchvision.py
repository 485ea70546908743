"""Datasets of torchvision, without network: files placed by hand, and messages of one line."""

import gzip
import hashlib
import json
import shutil
import struct

import numpy as np
import pytest

from dprobust import sources
from dprobust.arrays import load
from dprobust.errors import UserError
from dprobust.sources import torchvision_source
from dprobust.sources.file import File

datasets = pytest.importorskip("torchvision").datasets

RNG = np.random.default_rng(0)
NAMES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every address is one that nobody answers."""

    def fail(*_, **__):
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr("urllib.request.urlopen", fail)


def refused(name, folder, message):
    with pytest.raises(UserError, match=message) as error:
        sources.prepare(f"torchvision:{name}", folder)
    assert str(error.value).count("\n") == 0
    assert not list(folder.glob("*.npz")) and not (folder / "source.json").exists()
    return str(error.value)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def kmnist(tmp_path, monkeypatch):
    """A small KMNIST as torchvision would have downloaded it; the data folder is `tmp_path`."""
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for name, n in zip(NAMES, (30, 30, 10, 10), strict=True):
        array = RNG.integers(0, 256, (n, 28, 28), np.uint8) if "images" in name else np.arange(n, dtype=np.uint8) % 10
        packed = gzip.compress(idx(array), mtime=0)
        (raw / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.KMNIST, "resources", resources)
    monkeypatch.delitem(torchvision_source.FACTS, "KMNIST")
    return raw


def test_files_placed_by_hand(kmnist, tmp_path):
    sources.prepare("torchvision:KMNIST", tmp_path)
    train, test = load(tmp_path / "train.npz"), load(tmp_path / "test.npz")
    for split, found in ((True, train), (False, test)):
        theirs = datasets.KMNIST(tmp_path, train=split)
        np.testing.assert_array_equal(found.images[:, 0], theirs.data.numpy())
        assert found.labels.tolist() == theirs.targets.tolist() and found.classes == 10
    told = json.loads((tmp_path / "source.json").read_text())
    assert told["class_names"] == datasets.KMNIST.classes and told["sizes"] == {"train": 30, "test": 10}
    assert {name: entry["md5"] for name, entry in told["files"].items()} == dict(datasets.KMNIST.resources)
    assert {entry["origin"] for entry in told["files"].values()} == {"data folder"}


def test_what_was_extracted_is_not_trusted(kmnist, tmp_path):
    """torchvision takes such files as they are."""
    (kmnist / "train-labels-idx1-ubyte").write_bytes(idx(np.full(30, 7, np.uint8)))
    for name in NAMES:
        if not (kmnist / name).exists():
            (kmnist / name).write_bytes(gzip.decompress((kmnist / f"{name}.gz").read_bytes()))
    assert set(datasets.KMNIST(tmp_path).targets.tolist()) == {7}
    sources.prepare("torchvision:KMNIST", tmp_path)
    assert load(tmp_path / "train.npz").labels.tolist() == [i % 10 for i in range(30)]


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("name", [NAMES[0], NAMES[3]])
def test_a_flipped_bit_is_noticed(kmnist, tmp_path, name, extracted):
    path = kmnist / f"{name}.gz"
    content = bytearray(path.read_bytes())
    if extracted:
        (kmnist / name).write_bytes(gzip.decompress(content))
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    found, expected = hashlib.md5(content).hexdigest(), dict(datasets.KMNIST.resources)[path.name]
    refused("KMNIST", tmp_path, f"{name}.gz: found md5 {found}, expected {expected}")
    assert path.read_bytes() == content


def test_files_extracted_by_somebody_cannot_be_checked(kmnist, tmp_path):
    (kmnist / f"{NAMES[0]}.gz").rename(kmnist / NAMES[0])
    refused("KMNIST", tmp_path, f"{NAMES[0]}: cannot be checked without {NAMES[0]}.gz; put the right {NAMES[0]}.gz")


def test_files_of_an_old_torchvision_are_refused(kmnist, tmp_path):
    (tmp_path / "KMNIST" / "processed").mkdir()
    refused("KMNIST", tmp_path, "processed: files of an old torchvision.*delete the folder")


def test_known_contents_may_be_packed_anew_or_not_at_all(kmnist, tmp_path, monkeypatch):
    """As for MNIST and Fashion-MNIST, whose contents have published checksums."""
    files = []
    for name in NAMES:
        content = gzip.decompress((kmnist / f"{name}.gz").read_bytes())
        files.append(File(name, hashlib.sha256(content).hexdigest(), len(content), gzipped=True))
        (kmnist / f"{name}.gz").write_bytes(gzip.compress(content, 1, mtime=5))
    source = sources.Source((1, 28, 28), 10, {}, tuple(files), (), None)
    refused("KMNIST", tmp_path, "found md5")
    monkeypatch.setitem(torchvision_source.CONTENTS, "KMNIST", source)
    sources.prepare("torchvision:KMNIST", tmp_path)
    train = (tmp_path / "train.npz").read_bytes()
    (kmnist / f"{NAMES[0]}.gz").unlink()
    sources.prepare("torchvision:KMNIST", tmp_path)
    assert (tmp_path / "train.npz").read_bytes() == train
    (tmp_path / "train.npz").unlink(), (tmp_path / "test.npz").unlink(), (tmp_path / "source.json").unlink()
    (kmnist / NAMES[0]).write_bytes(bytes(5))
    refused("KMNIST", tmp_path, "train-images-idx3-ubyte: found sha256")


def test_no_network_says_what_to_place_where(tmp_path):
    message = refused("KMNIST", tmp_path, "no network")
    assert f"put {', '.join(f'{name}.gz' for name in NAMES)} into {tmp_path / 'KMNIST' / 'raw'} by hand" in message
    assert "cifar-10-python.tar.gz into" in refused("CIFAR10", tmp_path, "no network")
    assert "qmnist-test-labels-idx2-int.gz into" in refused("QMNIST", tmp_path, "no network")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KMIST", "has no such dataset; did you mean torchvision:KMNIST"),
        ("VisionDataset", "has no training and test set of its own"),
        ("vision", "has no such dataset"),
        ("EuroSAT", "has no training and test set of its own; use an .npz"),
        ("EMNIST", "Unknown value 'train' for argument split"),
    ],
)
def test_what_is_no_dataset_for_this_is_one_line(tmp_path, name, message):
    assert "Without network" not in refused(name, tmp_path, message)


class Made(datasets.VisionDataset):
    """A dataset whose content a test chooses."""

    examples = ()

    def __init__(self, root, split):
        super().__init__(root)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        return self.examples[i]


def picture(*shape, kind=np.uint8):
    from PIL import Image

    return Image.fromarray(np.zeros(shape, kind))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([(picture(4, 4), 0), (picture(4, 5), 1)], "train: picture 1 is grey, 5 x 4 pixels, the first is grey, 4 x 4"),
        ([(picture(4, 4), 0), (picture(4, 4, 3), 1)], "picture 1 is colour, 4 x 4 pixels, the first is grey"),
        ([(picture(4, 4, kind=np.int32), 0)], "picture 0 has mode I, expected L"),
        ([(picture(4, 4), (0, 1))], r"the label of picture 0 is \(0, 1\), expected an integer"),
        ([picture(4, 4)], "example 0 is not a picture and a label"),
        ([(np.zeros((4, 4), np.uint8), 0)], "example 0 is not a picture and a label"),
        ([(picture(4, 4), 0), (picture(4, 4), 2)], "training labels go from 0 to 2, but 2 of them occur"),
        ([], "train: no pictures"),
    ],
)
def test_images_that_are_not_alike_are_refused(tmp_path, monkeypatch, examples, message):
    monkeypatch.setattr(datasets, "Made", Made, raising=False)
    monkeypatch.setattr(Made, "examples", examples)
    refused("Made", tmp_path, f"torchvision:Made.*{message}")


def test_data_that_is_not_as_known_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "Made", Made, raising=False)
    monkeypatch.setattr(Made, "examples", [(picture(4, 4), 0), (picture(4, 4), 1)])
    sources.prepare("torchvision:Made", tmp_path / "a")
    assert load(tmp_path / "a" / "train.npz").images.shape == (2, 1, 4, 4)
    told = json.loads((tmp_path / "a" / "source.json").read_text())
    assert told["files"] == {"Made": {"origin": "torchvision", "verified": "by torchvision"}}
    monkeypatch.setitem(torchvision_source.FACTS, "Made", torchvision_source.FACTS["USPS"])
    refused("Made", tmp_path / "b", r"torchvision:Made: shape: found \(1, 4, 4\), expected \(1, 16, 16\)")


def test_its_own_check_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "Made", Made, raising=False)
    monkeypatch.setattr(Made, "examples", [(picture(4, 4), 0)])
    monkeypatch.setattr(Made, "_check_integrity", lambda self: False, raising=False)
    refused("Made", tmp_path, "the files are not those that torchvision knows")


def test_mnist_is_the_same_from_either_source(mnist, tmp_path):
    """The real files, decompressed, where torchvision looks for them."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES[2:]:
        (raw / f"{name}.gz").write_bytes(gzip.compress((mnist / name).read_bytes(), 1))
    for name in NAMES[:2]:
        shutil.copy(mnist / name, raw)
    sources.prepare("torchvision:MNIST", tmp_path)
    for name in ("train.npz", "test.npz"):
        assert (tmp_path / name).read_bytes() == (mnist / name).read_bytes()
