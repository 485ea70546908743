"""CIFAR-10 and CIFAR-100 from small archives in the official format."""

import hashlib
import json
import pickle
from dataclasses import replace

import cifar_archives
import numpy as np
import pytest

from dprobust import sources
from dprobust.arrays import load
from dprobust.errors import UserError
from dprobust.sources import NONE, SOURCES

CLASSES = {"cifar10": 10, "cifar100": 100}
BATCH = 7
TINY = {}
"""Datasets of this family, small."""


def prepare(name, folder, sha256=NONE):
    sources.prepare(name, folder, sha256=sha256, own=TINY)


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
        monkeypatch.setitem(TINY, name, tiny)
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
    (told,) = json.loads((tmp_path / "data" / "source.json").read_text())["files"].values()
    assert told["verified"] == "official checksum" and told["origin"] == str(cifar)


def test_a_repacked_cifar_is_marked(cifar, tmp_path):
    """Its batches in another order, without the page and the names that nobody reads."""
    contents = {k: v for k, v in reversed(cifar_archives.members("cifar10", BATCH).items()) if "meta" not in k}
    prepare("cifar10", tmp_path / "official")
    cifar_archives.pack(cifar / "cifar-10-python.tar.gz", contents)
    prepare("cifar10", tmp_path / "repacked")
    for split in ("train.npz", "test.npz"):
        assert (tmp_path / "official" / split).read_bytes() == (tmp_path / "repacked" / split).read_bytes()
    (told,) = json.loads((tmp_path / "repacked" / "source.json").read_text())["files"].values()
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
    (told,) = json.loads((tmp_path / "data" / "source.json").read_text())["files"].values()
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
    for call in (lambda: prepare("cifar100", tmp_path, sha256), lambda: sources.identity("cifar100", sha256)):
        with pytest.raises(UserError, match=message):
            call()
    assert not list(tmp_path.iterdir())


def test_identity_is_of_the_members_or_of_the_override():
    members = SOURCES["cifar10"].files[0].members
    assert sources.identity("cifar10") == {"source": "cifar10", "files": {"cifar-10-python.tar.gz": members}}
    digest = "AB" * 32
    told = sources.identity("cifar10", {"cifar-10-python.tar.gz": digest})
    assert told["files"] == {"cifar-10-python.tar.gz": digest.lower()}


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
