"""Data of one's own: an .npz, and a folder of pictures by class."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from dprobust import sources
from dprobust.arrays import load
from dprobust.errors import UserError
from dprobust.sources.npz import NAMES

RNG = np.random.default_rng(0)


def prepared(source, folder):
    sources.prepare(str(source), folder)
    return load(folder / "train.npz"), load(folder / "test.npz"), json.loads((folder / "source.json").read_text())


def refused(source, folder, message):
    with pytest.raises(UserError, match=message) as error:
        sources.prepare(str(source), folder)
    assert "\n" not in str(error.value)
    assert not folder.exists() or not list(folder.iterdir())


# An .npz.

LABELS = np.array([2, 0, 1, 0])


def npz(path, layout="NHW", names=("train_images", "train_labels", "test_images", "test_labels"), **changes):
    """Write an .npz whose images, as (N, C, H, W), are returned."""
    images = RNG.integers(0, 256, (4, 1 if layout in ("NHW", "NHW1") else 3, 6, 5), np.uint8)
    kept = {"NHW": images[:, 0], "NHW1": images.transpose(0, 2, 3, 1), "NCHW": images}
    kept["NHWC"] = images.transpose(0, 2, 3, 1)
    arrays = dict(zip(names, (kept[layout], LABELS, kept[layout][:2], LABELS[:2]), strict=True)) | changes
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return images


@pytest.mark.parametrize("layout", ["NHW", "NHW1", "NCHW", "NHWC"])
@pytest.mark.parametrize("names", NAMES)
def test_npz(tmp_path, layout, names):
    path = tmp_path / "own.npz"
    images = npz(path, layout, names)
    train, test, told = prepared(path, tmp_path / "data")
    np.testing.assert_array_equal(train.images, images)
    np.testing.assert_array_equal(test.images, images[:2])
    assert train.labels.tolist() == LABELS.tolist() and test.labels.tolist() == LABELS[:2].tolist()
    assert train.classes == test.classes == told["classes"] == 3 and told["class_names"] is None
    shape = images.shape[1:]
    assert sources.facts(str(path)).plain() == {"shape": [*shape], "classes": 3, "train": 4, "test": 2}
    assert told["files"]["own.npz"]["sha256"] == sources.identity(str(path))["sha256"]


def test_labels_as_keras_gives_them_and_arrays_that_are_not_asked_for(tmp_path):
    npz(tmp_path / "a.npz", train_labels=LABELS.astype(np.uint8)[:, None], note=np.array([{}], object))
    train, _, _ = prepared(tmp_path / "a.npz", tmp_path / "data")
    assert train.labels.tolist() == LABELS.tolist()


def test_more_than_256_classes(tmp_path):
    labels = np.arange(300)
    images = np.zeros((300, 2, 2), np.uint8)
    npz(tmp_path / "a.npz", train_labels=labels, train_images=images, test_images=images, test_labels=labels)
    train, test, _ = prepared(tmp_path / "a.npz", tmp_path / "data")
    assert train.labels.tolist() == test.labels.tolist() == labels.tolist() and train.classes == 300


IMAGES = RNG.integers(0, 256, (4, 6, 5), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": None}, "found train_images, train_labels, test_images of the arrays, expected train_images"),
        ({"train_images": IMAGES / 255}, r"train_images: found float64 \(4, 6, 5\), expected uint8 \(N, H, W\)"),
        ({"train_images": IMAGES[0]}, r"train_images: found uint8 \(6, 5\)"),
        ({"train_images": IMAGES[:, :0]}, r"train_images: found uint8 \(4, 0, 5\)"),
        ({"test_images": IMAGES[:2, 1:]}, r"test_images: images \(5, 5\), expected \(6, 5\) as in train_images"),
        ({"train_labels": LABELS[:3]}, r"train_labels: found int64 \(3,\), expected integers \(4,\)"),
        ({"train_labels": LABELS * 1.0}, "train_labels: found float64"),
        ({"train_labels": np.eye(4)}, "train_labels: found float64"),
        ({"train_labels": LABELS + 1}, "training labels go from 1 to 3, but 3 of them occur; expected each of 0 to K"),
        ({"train_labels": LABELS - 1}, "training labels go from -1 to 1; expected each"),
        ({"train_labels": LABELS * 2}, "training labels go from 0 to 4, but 3 of them occur"),
        ({"test_labels": LABELS[:2] + 1}, "test labels go from 1 to 3, expected 0 to 2"),
        ({"test_images": IMAGES[:0], "test_labels": LABELS[:0]}, r"test_images: found uint8 \(0, 6, 5\)"),
        ({"test_labels": np.array([{}, {}], object)}, "not an .npz of plain arrays"),
    ],
)
def test_an_npz_that_is_no_dataset_is_one_line(tmp_path, change, message):
    npz(tmp_path / "a.npz", **change)
    refused(tmp_path / "a.npz", tmp_path / "data", f"^{re.escape(str(tmp_path / 'a.npz'))}: .*{message}")


def test_a_damaged_npz_is_one_line(tmp_path):
    npz(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    refused(tmp_path / "a.npz", tmp_path / "data", "a.npz: damaged")


def test_the_identity_of_an_npz_is_its_content(tmp_path):
    path, other = tmp_path / "a.npz", tmp_path / "b.npz"
    npz(path)
    before, content = sources.identity(str(path)), path.read_bytes()
    other.write_bytes(content)
    os.utime(other, (1, 1))
    assert sources.identity(str(other)) == before
    changed = bytearray(content)
    changed[50] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(5, 5))
    assert sources.identity(str(path)) != before
    path.write_bytes(content)
    assert sources.identity(str(path)) == before


# A folder.


@pytest.fixture
def folder(tmp_path):
    """Grey pictures of two classes, one in a folder below."""
    for split, n in (("train", 3), ("test", 1)):
        for name in ("shoe", "Bag"):
            place = tmp_path / "pictures" / split / name
            (place / "more").mkdir(parents=True)
            for i in range(n):
                save(place / f"{i}.png")
            save(place / "more" / "0.PNG")
            (place / "notes.txt").write_text("not a picture")
    (tmp_path / "pictures" / "train" / "readme.md").write_text("nor is this")
    return tmp_path / "pictures"


def save(path, size=(4, 5), mode="L"):
    pixels = RNG.integers(0, 256, (size[1], size[0], *([3] if mode == "RGB" else [])), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_folder_is_read_as_torchvision_reads_it(folder, tmp_path, mode):
    from torchvision.datasets import ImageFolder

    for path in [*folder.rglob("*.png"), *folder.rglob("*.PNG")]:
        save(path, mode=mode)
    train, test, told = prepared(folder, tmp_path / "data")
    for split, found in (("train", train), ("test", test)):
        theirs = ImageFolder(str(folder / split), loader=lambda path: np.asarray(Image.open(path)))
        images = np.stack([image for image, _ in theirs])
        images = images[:, None] if mode == "L" else images.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(found.images, images)
        assert found.labels.tolist() == [label for _, label in theirs]
        assert told["class_names"] == theirs.classes == ["Bag", "shoe"]
    shape = [1 if mode == "L" else 3, 5, 4]
    assert told["shape"] == shape and train.classes == 2
    assert sources.facts(f"{folder}/").plain() == {"shape": shape, "classes": 2, "train": 8, "test": 4}


def palette(path):
    Image.fromarray(np.zeros((5, 4), np.uint8)).convert("P").save(path)


def deep(path):
    Image.fromarray(np.zeros((5, 4), np.uint16)).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: save(f / "train/shoe/1.png", (5, 4)), "grey, 5 x 4 pixels, the first is grey, 4 x 5 pixels"),
        (lambda f: save(f / "test/shoe/0.png", mode="RGB"), "picture 2 is colour, 4 x 5 pixels, the first is grey"),
        (lambda f: [save(p, (9, 9)) for p in f.glob("test/*/**/*.[pP]*")], r"\(5, 4\) in train, but \(9, 9\) in test"),
        (lambda f: palette(f / "train/Bag/0.png"), "picture 0 has mode P, expected L"),
        (lambda f: deep(f / "train/Bag/1.png"), "picture 1 has mode I;16, expected L"),
        (lambda f: (f / "test/shoe/0.png").write_bytes(b"junk"), "test/shoe/0.png: not a picture that can be read"),
        (
            lambda f: (f / "test/shoe/0.png").write_bytes((f / "test/shoe/0.png").read_bytes()[:60]),
            "test/shoe/0.png: not a picture that can be read",
        ),
        (lambda f: (f / "test" / "hat").mkdir(), "class 'hat' is in test only"),
        (lambda f: [p.unlink() for p in f.glob("test/shoe/**/*.[pP]*")], "test/shoe: no pictures"),
        (lambda f: (f / "test").rename(f / "val"), "pictures/test: No such file or directory; expected a folder"),
    ],
)
def test_a_folder_that_is_no_dataset_is_one_line(folder, tmp_path, spoil, message):
    spoil(folder)
    refused(folder, tmp_path / "data", message)


def test_the_identity_of_a_folder_is_its_names_and_contents(folder, tmp_path):
    before = sources.identity(str(folder))
    folder.rename(tmp_path / "moved")
    folder = tmp_path / "moved"
    (folder / "train" / "shoe" / "notes.txt").write_text("changed")
    os.utime(folder / "train" / "shoe" / "0.png", (1, 1))
    assert sources.identity(str(folder)) == before
    (folder / "train" / "shoe" / "0.png").rename(folder / "train" / "shoe" / "9.png")
    renamed = sources.identity(str(folder))
    assert renamed != before
    save(folder / "train" / "shoe" / "9.png")
    assert sources.identity(str(folder)) != renamed
