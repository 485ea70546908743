"""Sources of known files, and what a plan may ask of any source."""

import gzip
import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import ROOT

from dprobust import sources
from dprobust.arrays import load
from dprobust.errors import UserError
from dprobust.sources import SOURCES, Source
from dprobust.sources.file import File
from dprobust.sources.idx import LENGTHS, parse, read_idx


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
        (gzip.compress(idx(ARRAY), mtime=0)[:-9], "broken gzip"),
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
    """A source in MNIST's format, whose mirror is the folder `mirror`."""
    monkeypatch.delenv("DPROBUST_MIRROR", raising=False)
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
    return Source((1, 28, 28), 10, {"train": 6, "test": 4}, tuple(files), (str(mirror),), parse, tuple("abcdefghij"))


def prepare(source, folder, **options):
    sources.prepare("tiny", folder, own={"tiny": source}, **options)


def test_prepare_and_load(tiny, tmp_path):
    prepare(tiny, tmp_path / "data")
    test = load(tmp_path / "data" / "test.npz")
    assert test.images.shape == (4, 1, 28, 28) and test.images.dtype == np.uint8 and test.classes == 10
    assert test.labels.shape == (4,) and test.labels.dtype == np.int64
    np.testing.assert_array_equal(test.images[:, 0], read_idx(tmp_path / "mirror" / "t10k-images-idx3-ubyte"))
    assert len(load(tmp_path / "data" / "train.npz")) == 6
    told = json.loads((tmp_path / "data" / "source.json").read_text())
    assert {entry["origin"] for entry in told.pop("files").values()} == {str(tmp_path / "mirror")}
    sizes = {"train": 6, "test": 4}
    expected = {"source": "tiny", "shape": [1, 28, 28], "classes": 10, "sizes": sizes, "class_names": [*"abcdefghij"]}
    assert told == expected


def test_prepare_is_the_same_bytes_each_time(tiny, tmp_path):
    for folder in "ab":
        prepare(tiny, tmp_path / folder)
    for name in ("train.npz", "test.npz", "source.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_prepare_refuses_what_is_not_the_dataset(tiny, tmp_path):
    with pytest.raises(UserError, match=r"train images \(6, 28, 28\)"):
        prepare(replace(tiny, sizes={"train": 7, "test": 4}), tmp_path / "data")
    assert not list((tmp_path / "data").glob("*.npz"))


def test_a_source_may_give_images_with_their_channel_and_need_no_files(tmp_path):
    """A dataset of one's own that is computed, not downloaded."""
    images, labels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 1, 4, 5), np.array([0, 1, 2])
    made = {"train": (images, labels), "test": (images[:1], labels[:1])}
    prepare(Source((1, 4, 5), 3, {"train": 3, "test": 1}, (), (), lambda folder: made), tmp_path)
    found = load(tmp_path / "train.npz")
    np.testing.assert_array_equal(found.images, images)
    assert found.classes == 3 and json.loads((tmp_path / "source.json").read_text())["class_names"] is None


def test_an_override_frees_the_number_of_examples(tiny, tmp_path):
    mirror = tmp_path / "mirror"
    for prefix, array in (("images", np.zeros((2, 28, 28), np.uint8)), ("labels", np.zeros(2, np.uint8))):
        (mirror / f"t10k-{prefix}-idx{array.ndim}-ubyte").write_bytes(idx(array))
    names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    sha256 = {name: hashlib.sha256((mirror / name).read_bytes()).hexdigest() for name in names}
    prepare(tiny, tmp_path / "data", sha256=sha256)
    assert load(tmp_path / "data" / "test.npz").images.shape == (2, 1, 28, 28)
    files = json.loads((tmp_path / "data" / "source.json").read_text())["files"]
    assert {name for name, entry in files.items() if entry["verified"] == "sha256 override"} == set(names)


FULL = """
import resource, signal, sys
from pathlib import Path
from dprobust import sources
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    sources.prepare(sys.argv[1], Path(sys.argv[2]))
except OSError as error:
    print(error)
"""


def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{x}_train": rng.integers(0, 2, (300, *shape), np.uint8) for x, shape in (("x", (28, 28)), ("y", ()))}
    arrays |= {name.replace("train", "test"): array[:9] for name, array in arrays.items()}
    np.savez(tmp_path / "own.npz", **arrays)
    command = [sys.executable, "-c", FULL, tmp_path / "own.npz", tmp_path / "data"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and f"'{tmp_path / 'data' / 'train.npz'}'" in done.stdout
    assert list((tmp_path / "data").iterdir()) == []


# What a plan asks.


def test_facts_of_what_is_known():
    plain = {name: sources.facts(name).plain() for name in SOURCES}
    mnist = {"shape": [1, 28, 28], "classes": 10, "train": 60_000, "test": 10_000}
    assert plain["mnist"] == plain["fashion_mnist"] == sources.facts("torchvision:KMNIST").plain() == mnist
    assert plain["cifar100"] == {"shape": [3, 32, 32], "classes": 100, "train": 50_000, "test": 10_000}
    assert set(sources.facts("torchvision:Country211").plain().values()) == {None}


def test_identity_of_known_files_is_their_checksums(tiny):
    told = sources.identity("mnist")
    assert told["source"] == "mnist" and set(told["files"]) == set(LENGTHS)
    assert told["files"]["t10k-labels-idx1-ubyte"].startswith("ff7bcfd4")
    assert told["files"].keys() == sources.identity("fashion_mnist")["files"].keys()
    assert not set(told["files"].values()) & set(sources.identity("fashion_mnist")["files"].values())
    other = sources.identity("mnist", {"t10k-labels-idx1-ubyte": "0" * 64})
    assert other["files"] == told["files"] | {"t10k-labels-idx1-ubyte": "0" * 64}
    assert sources.identity("tiny", own={"tiny": tiny})["files"] == {file.name: file.checksum for file in tiny.files}
    # Where it comes from is no part of what it is.
    assert sources.identity("tiny", own={"tiny": replace(tiny, mirrors=("elsewhere",))}) == sources.identity(
        "tiny", own={"tiny": tiny}
    )


def test_own_datasets_come_first(tiny):
    assert sources.facts("mnist", own={"mnist": tiny}).train == 6


def test_slugs_are_safe_and_distinct():
    assert [sources.slug(name) for name in ("mnist", "torchvision:KMNIST")] == ["mnist", "torchvision-KMNIST"]
    paths = [
        "a/b.npz",
        "c/b.npz",
        "../b c{x}.npz",
        "~/ü.npz",
        "/data/images/",
        "..",
        "/",
        "x" * 300 + ".npz",
        "a/b\n.npz",
    ]
    slugs = [sources.slug(path) for path in paths]
    assert len(set(slugs)) == len(paths)
    for slug in slugs:
        assert slug.isascii() and set(slug) <= set("-_") | {c for c in slug if c.isalnum()} and 9 < len(slug) < 60
    assert slugs[0].startswith("b-") and slugs[2].startswith("b_c_x-") and slugs[4].startswith("images-")
    assert sources.slug("/data/images/") == sources.slug("/data/images")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnits", "found 'mnits', expected one of mnist, fashion_mnist.*did you mean 'mnist'"),
        ("", "found ''"),
        ("torchvision:", "found 'torchvision:', expected the name of a class"),
        ("torchvision:../x", "expected the name of a class"),
        ("torchvision:KMNIST\n", "expected the name of a class"),
        ("/nowhere.npz", "/nowhere.npz: No such file or directory"),
        ("nowhere/", "nowhere/train: No such file or directory; expected a folder of pictures"),
    ],
)
def test_a_source_that_is_none_is_one_line(source, message):
    for ask in (sources.facts, sources.identity):
        with pytest.raises(UserError, match=message) as error:
            ask(source)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["torchvision:KMNIST", "/nowhere.npz", "nowhere/"])
def test_only_known_files_have_mirrors_and_overrides(tmp_path, source):
    with pytest.raises(UserError, match="sha256: .* takes none"):
        sources.identity(source, {"file": "0" * 64})
    with pytest.raises(UserError, match="mirrors: .* takes none"):
        sources.prepare(source, tmp_path, mirrors=["/mirror"])


PLAN = """
import sys
from dprobust import sources
for source in ("mnist", "cifar100", "torchvision:KMNIST"):
    sources.facts(source), sources.identity(source), sources.slug(source)
assert not {"numpy", "requests", "PIL", "torch", "torchvision"} & set(sys.modules), "planning"
import dprobust.arrays, dprobust.sources.download, dprobust.sources.examine, dprobust.materials.mnist_c.settings
assert not {"torch", "torchvision"} & set(sys.modules), "reading"
"""


def test_planning_imports_nothing_heavy_and_reading_no_torch():
    subprocess.run([sys.executable, "-c", PLAN], cwd=ROOT, check=True)


# The real thing.


def test_checksums_are_those_of_other_readers():
    """Fashion-MNIST's content, the file sizes and the addresses against torchvision's list."""
    from torchvision.datasets import MNIST, FashionMNIST

    for name, theirs in (("mnist", MNIST), ("fashion_mnist", FashionMNIST)):
        assert SOURCES[name].mirrors[0] == theirs.mirrors[0]
        assert {f"{file.name}.gz" for file in SOURCES[name].files} == {resource for resource, _ in theirs.resources}
    assert SOURCES["fashion_mnist"].names == tuple(FashionMNIST.classes)


def test_official_mnist(mnist):
    """Known facts of the real files: sizes, class counts, first labels."""
    train, test = load(mnist / "train.npz"), load(mnist / "test.npz")
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (train.images / 255).mean() == pytest.approx(0.1307, abs=5e-5)
    assert (train.images / 255).std() == pytest.approx(0.3081, abs=5e-5)
