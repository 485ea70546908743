import gzip
import hashlib
import json
import pickle
import struct
import subprocess
import sys
from dataclasses import replace

import cifar_archives
import numpy as np
import pytest
from helpers import ROOT

from dprobust import datasets
from dprobust.datasets import SOURCES, Source, Split, load, prepare, read_idx
from dprobust.download import File
from dprobust.errors import UserError


def idx(array, kind=0x08):
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


ARRAY = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_read_idx(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack(idx(ARRAY)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), ARRAY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG" + idx(ARRAY), "not an IDX file"),
        (idx(ARRAY, kind=0x0D), "element type 0x0d"),
        (idx(ARRAY)[:9], "cut off"),
        (idx(ARRAY)[:-1], "needs 46"),
        (idx(ARRAY) + b"x", "needs 46"),
        (b"\0\0\x08\0", "0 dimensions"),
        (struct.pack(">HBB2I", 0, 8, 2, 2**31, 2**33 % 2**32 + 2**31), "needs"),
    ],
)
def test_read_idx_refuses(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_idx(tmp_path / "a")
    assert "\n" not in str(error.value)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A source in MNIST's format and the folder of its mirror."""
    mirror, rng, files = tmp_path / "mirror", np.random.default_rng(0), []
    mirror.mkdir()
    for prefix, n in (("train", 6), ("t10k", 4)):
        for name, array in (
            (f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28), np.uint8)),
            (f"{prefix}-labels-idx1-ubyte", rng.integers(0, 10, n, np.uint8)),
        ):
            content = idx(array)
            (mirror / name).write_bytes(content)
            files.append(File(name, hashlib.sha256(content).hexdigest(), len(content)))
    source = Source((1, 28, 28), 10, {"train": 6, "test": 4}, tuple(files), (str(mirror),), SOURCES["mnist"].parse)
    monkeypatch.setitem(datasets.SOURCES, "tiny", source)
    return mirror


def test_prepare_and_load(tiny, tmp_path):
    prepare("tiny", tmp_path / "data")
    test = load(tmp_path / "data" / "test.npz")
    assert test.images.shape == (4, 1, 28, 28) and test.images.dtype == np.uint8
    assert test.labels.shape == (4,) and test.labels.dtype == np.int64
    np.testing.assert_array_equal(test.images[:, 0], read_idx(tiny / "t10k-images-idx3-ubyte"))
    assert len(load(tmp_path / "data" / "train.npz").first(5)) == 5
    told = json.loads((tmp_path / "data" / "source.json").read_text())
    assert {entry["origin"] for entry in told.values()} == {str(tiny)}


def test_prepare_is_the_same_bytes_each_time(tiny, tmp_path):
    for folder in "ab":
        prepare("tiny", tmp_path / folder)
    for name in ("train.npz", "test.npz", "source.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_prepare_refuses_what_is_not_the_dataset(tiny, tmp_path, monkeypatch):
    source = SOURCES["tiny"]
    monkeypatch.setitem(datasets.SOURCES, "tiny", Source(**{**vars(source), "sizes": {"train": 7, "test": 4}}))
    with pytest.raises(UserError, match=r"train images \(6, 28, 28\)"):
        prepare("tiny", tmp_path / "data")


def test_an_override_frees_the_number_of_examples(tiny, tmp_path):
    for prefix, array in (("images", np.zeros((2, 28, 28), np.uint8)), ("labels", np.zeros(2, np.uint8))):
        (tiny / f"t10k-{prefix}-idx{array.ndim}-ubyte").write_bytes(idx(array))
    names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    sha256 = {name: hashlib.sha256((tiny / name).read_bytes()).hexdigest() for name in names}
    prepare("tiny", tmp_path / "data", sha256=sha256)
    assert load(tmp_path / "data" / "test.npz").images.shape == (2, 1, 28, 28)
    told = json.loads((tmp_path / "data" / "source.json").read_text())
    assert {name for name, entry in told.items() if entry["verified"] == "sha256 override"} == set(names)


def test_first():
    split = Split(np.zeros((3, 1, 2, 2), np.uint8), np.arange(3))
    assert split.first(2).labels.tolist() == [0, 1] and len(split.first(None)) == len(split.first(3)) == 3
    with pytest.raises(UserError, match="4 examples asked for, there are 3: set train_size or test_size"):
        split.first(4)


CLASSES = {"cifar10": 10, "cifar100": 100}
BATCH = 7


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """The folder of a mirror; what it holds at first is official."""
    monkeypatch.delenv("DPROBUST_MIRROR", raising=False)
    mirror = tmp_path / "mirror"
    for name, archive in cifar_archives.ARCHIVES.items():
        cifar_archives.write(name, mirror, BATCH)
        md5s = {
            member: hashlib.md5(content).hexdigest()
            for member, content in cifar_archives.members(name, BATCH).items()
            if member in SOURCES[name].files[0].members
        }
        file = replace(
            SOURCES[name].files[0], checksum=hashlib.md5((mirror / archive).read_bytes()).hexdigest(), members=md5s
        )
        sizes = {"train": 5 * BATCH if name == "cifar10" else BATCH, "test": BATCH}
        tiny = replace(SOURCES[name], files=(file,), mirrors=(str(mirror),), sizes=sizes)
        monkeypatch.setitem(datasets.SOURCES, name, tiny)
    return mirror


def test_cifar_is_as_torchvision_lists_it():
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        (file,) = SOURCES[name].files
        assert file.checksum == theirs.tgz_md5
        assert f"{SOURCES[name].mirrors[0]}{file.name}" == theirs.url
        listed = theirs.train_list + theirs.test_list
        assert file.members == {f"{theirs.base_folder}/{member}": md5 for member, md5 in listed}


@pytest.mark.parametrize("name", CLASSES)
def test_prepare_cifar(cifar, tmp_path, name):
    prepare(name, tmp_path / "data")
    key = {"cifar10": b"labels", "cifar100": b"fine_labels"}[name]
    batches = {
        member: pickle.loads(content, encoding="bytes")
        for member, content in cifar_archives.members(name, BATCH).items()
        if "meta" not in member
    }
    for split in ("train", "test"):
        parts = [batch for member, batch in batches.items() if ("test" in member) == (split == "test")]
        found = load(tmp_path / "data" / f"{split}.npz")
        pixels = np.concatenate([batch[b"data"] for batch in parts])
        np.testing.assert_array_equal(found.images, pixels.reshape(-1, 3, 32, 32))
        assert found.labels.tolist() == [label for batch in parts for label in batch[key]]
        assert found.images.dtype == np.uint8 and found.labels.dtype == np.int64
    (told,) = json.loads((tmp_path / "data" / "source.json").read_text()).values()
    assert told["verified"] == "official checksum" and told["origin"] == str(cifar)


def test_a_repacked_cifar_is_marked(cifar, tmp_path):
    """Its batches in another order, without the page and the names that nobody reads."""
    contents = {k: v for k, v in reversed(cifar_archives.members("cifar10", BATCH).items()) if "meta" not in k}
    prepare("cifar10", tmp_path / "official")
    cifar_archives.pack(cifar / "cifar-10-python.tar.gz", contents)
    prepare("cifar10", tmp_path / "repacked")
    for split in ("train.npz", "test.npz"):
        assert (tmp_path / "official" / split).read_bytes() == (tmp_path / "repacked" / split).read_bytes()
    (told,) = json.loads((tmp_path / "repacked" / "source.json").read_text()).values()
    assert told["verified"] == "checksums of the members"


def test_another_cifar_needs_an_override_and_is_marked(cifar, tmp_path):
    digest = cifar_archives.write("cifar100", cifar, BATCH - 2)
    with pytest.raises(UserError, match=digest):
        prepare("cifar100", tmp_path / "data")
    with pytest.raises(UserError, match="the override"):
        prepare("cifar100", tmp_path / "data", sha256={"cifar-100-python.tar.gz": "0" * 64})
    assert not list((tmp_path / "data").glob("*.npz"))
    prepare("cifar100", tmp_path / "data", sha256={"cifar-100-python.tar.gz": digest.upper()})
    assert len(load(tmp_path / "data" / "train.npz")) == BATCH - 2
    (told,) = json.loads((tmp_path / "data" / "source.json").read_text()).values()
    assert told == {"origin": str(cifar), "verified": "sha256 override", "sha256": digest}


def test_cifar_100_under_the_name_of_cifar_10(cifar, tmp_path):
    digest = cifar_archives.pack(cifar / "cifar-10-python.tar.gz", cifar_archives.members("cifar100", BATCH))
    for sha256 in ({}, {"cifar-10-python.tar.gz": digest}):
        with pytest.raises(UserError, match="no member cifar-10-batches-py/data_batch_1"):
            prepare("cifar10", tmp_path / "data", sha256=sha256)


@pytest.mark.parametrize(
    ("sha256", "message"),
    [
        ({"cifar-100.tar.gz": "0" * 64}, "cifar100 has no file 'cifar-100.tar.gz', only cifar-100-python.tar.gz"),
        ({"cifar-100-python.tar.gz": "0" * 32}, "is not a SHA-256"),
        ({"cifar-100-python.tar.gz": "0" * 64 + "\n"}, "is not a SHA-256"),
    ],
)
def test_an_override_that_cannot_be(tmp_path, sha256, message):
    with pytest.raises(UserError, match=message):
        prepare("cifar100", tmp_path, sha256=sha256)
    assert not list(tmp_path.iterdir())


IMAGES, LABELS = np.zeros((2, 3072), np.uint8), [0, 99]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"fine_labels": LABELS}, "no b'data' in the batch"),
        ({b"data": IMAGES, b"labels": LABELS}, "no b'fine_labels' in the batch"),
        ({b"data": IMAGES.tolist(), b"fine_labels": LABELS}, "data: found list, expected uint8"),
        ({b"data": IMAGES.astype(np.int8), b"fine_labels": LABELS}, r"data: found int8 \(2, 3072\)"),
        ({b"data": IMAGES[:, 1:], b"fine_labels": LABELS}, r"data: found uint8 \(2, 3071\)"),
        ({b"data": IMAGES[0], b"fine_labels": LABELS}, r"data: found uint8 \(3072,\)"),
        ({b"data": IMAGES, b"fine_labels": [0, 100]}, "fine_labels: not a list of integers from 0 to 99"),
        ({b"data": IMAGES, b"fine_labels": [-1, 0]}, "fine_labels: not a list"),
        ({b"data": IMAGES, b"fine_labels": [[0], 0]}, "fine_labels: not a list"),
        ({b"data": IMAGES, b"fine_labels": [True, 0]}, "fine_labels: not a list"),
        ({b"data": IMAGES, b"fine_labels": b"ab"}, "fine_labels: not a list"),
        ({b"data": IMAGES, b"fine_labels": np.array([[0, 0]])}, "fine_labels: not a list"),
        ({b"data": IMAGES, b"fine_labels": [0]}, "fine_labels: 1 for 2 images"),
        ([b"data"], "list, expected a dict"),
    ],
)
def test_a_batch_is_checked_even_under_an_override(cifar, tmp_path, batch, message):
    contents = cifar_archives.members("cifar100", BATCH) | {"cifar-100-python/test": pickle.dumps(batch, 2)}
    digest = cifar_archives.pack(cifar / "cifar-100-python.tar.gz", contents)
    with pytest.raises(UserError, match=f"cifar-100-python/test: .*{message}") as error:
        prepare("cifar100", tmp_path / "data", sha256={"cifar-100-python.tar.gz": digest})
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "data").glob("*.npz"))


def test_labels_may_be_an_array(cifar, tmp_path):
    batch = {b"data": IMAGES, b"fine_labels": np.array(LABELS)}
    contents = cifar_archives.members("cifar100", BATCH) | {"cifar-100-python/test": pickle.dumps(batch, 2)}
    digest = cifar_archives.pack(cifar / "cifar-100-python.tar.gz", contents)
    prepare("cifar100", tmp_path / "data", sha256={"cifar-100-python.tar.gz": digest})
    assert load(tmp_path / "data" / "test.npz").labels.tolist() == LABELS


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {b"data": [evil], b"fine_labels": LABELS}])
def test_a_malicious_batch_does_not_run(cifar, tmp_path, wrap):
    proof = tmp_path / "it ran"
    content = pickle.dumps(wrap(Malice(proof)), 2)
    pickle.loads(content)
    proof.unlink()
    contents = cifar_archives.members("cifar100", BATCH) | {"cifar-100-python/train": content}
    digest = cifar_archives.pack(cifar / "cifar-100-python.tar.gz", contents)
    for sha256, message in (({}, digest), ({"cifar-100-python.tar.gz": digest}, "forbidden global")):
        with pytest.raises(UserError, match=message):
            prepare("cifar100", tmp_path / "data", sha256=sha256)
    assert not proof.exists()


def test_the_module_does_not_import_torch():
    code = "import sys, dprobust.datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_official_mnist(mnist):
    """Known facts of the real files: sizes, class counts, first labels."""
    train, test = load(mnist / "train.npz"), load(mnist / "test.npz")
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (train.images / 255).mean() == pytest.approx(0.1307, abs=5e-5)
    assert (train.images / 255).std() == pytest.approx(0.3081, abs=5e-5)
