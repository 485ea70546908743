import gzip
import hashlib
import json
import struct

import numpy as np
import pytest

from dprobust import datasets
from dprobust.datasets import SOURCES, Source, load, prepare, read_idx
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


def test_official_mnist(mnist):
    """Known facts of the real files: sizes, class counts, first labels."""
    train, test = load(mnist / "train.npz"), load(mnist / "test.npz")
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (train.images / 255).mean() == pytest.approx(0.1307, abs=5e-5)
    assert (train.images / 255).std() == pytest.approx(0.3081, abs=5e-5)
