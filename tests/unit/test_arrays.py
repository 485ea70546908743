"""Splits as files, whole or named as damaged; and the study's draw."""

import io
import zipfile

import numpy as np
import pytest

from dprobust.arrays import Split, draw, load, read_npz, save
from dprobust.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7, 8), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 3, 7, 8), np.uint8)
LABELS = np.array([0, 3, 1, 2, 3], np.uint8)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (GREY, (5, 1, 7, 8)),
        (GREY[:, None], (5, 1, 7, 8)),
        (COLOUR, (5, 3, 7, 8)),
        (COLOUR[:, :, :, ::-1], (5, 3, 7, 8)),
        (RNG.normal(size=(5, 12)).astype(np.float32), (5, 12)),
        (RNG.normal(size=(5, 2, 12)).astype(np.float32), (5, 2, 12)),
    ],
)
def test_save_and_load(tmp_path, images, shape):
    save(tmp_path / "a" / "train.npz", images, LABELS, 9)
    split = load(tmp_path / "a" / "train.npz")
    np.testing.assert_array_equal(split.images, images.reshape(shape))
    assert split.images.dtype == images.dtype and split.labels.dtype == np.int64 and split.classes == 9
    assert split.labels.tolist() == LABELS.tolist() and len(split) == 5
    save(tmp_path / "b.npz", images.copy(), LABELS, 9)
    assert (tmp_path / "a" / "train.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_take():
    split = Split(COLOUR, LABELS, 4).take(np.array([3, 0]))
    np.testing.assert_array_equal(split.images, COLOUR[[3, 0]])
    assert split.labels.tolist() == [2, 0] and split.classes == 4
    assert Split(COLOUR, LABELS).take(slice(2)).labels.tolist() == [0, 3]


@pytest.fixture
def file(tmp_path):
    save(tmp_path / "test.npz", COLOUR, LABELS, 4)
    return tmp_path / "test.npz"


def refused(path, message="."):
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    return True


def test_a_file_cut_off_anywhere_is_one_line(file):
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        refused(file, "damaged")


def test_a_flipped_bit_is_noticed_or_changes_nothing(file):
    """Of every 11th byte one bit: what is read is either refused by name or what was written."""
    content, refusals = file.read_bytes(), 0
    for place in range(0, len(content), 11):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            split = load(file)
        except UserError as error:
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
            refusals += 1
        else:
            np.testing.assert_array_equal(split.images, COLOUR)
            assert split.labels.tolist() == LABELS.tolist() and split.classes == 4
    assert refusals > 0.8 * len(content) / 11


def test_what_is_no_split_is_one_line(tmp_path):
    refused(tmp_path / "nowhere.npz", "no such file")
    buffer = io.BytesIO()
    np.save(buffer, GREY)
    for content in (b"", b"junk" * 100, buffer.getvalue()):
        (tmp_path / "a.npz").write_bytes(content)
        refused(tmp_path / "a.npz", "damaged, or not an .npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("images.npy", b"junk")
    refused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "no array classes; delete"),
        ({"images": GREY.astype(float)}, r"images: found float64 \(5, 7, 8\), expected"),
        ({"images": COLOUR[0, 0]}, r"images: found uint8 \(7, 8\)"),
        ({"images": COLOUR.astype(np.float32)}, r"images: found float32 \(5, 3, 7, 8\)"),
        ({"labels": LABELS[:4]}, r"labels: found uint8 \(4,\), expected integers \(5,\)"),
        ({"labels": LABELS.astype(float)}, "labels: found float64"),
        ({"labels": LABELS.astype(int) - 1}, "labels: found -1 to 2, expected 0 to 3"),
        ({"classes": 3}, "labels: found 0 to 3, expected 0 to 2"),
        ({"classes": 4.0}, "classes: found float64"),
        ({"labels": np.array([{}] * 5, object)}, "not an .npz of plain arrays"),
    ],
)
def test_arrays_that_are_no_split_are_named(tmp_path, change, message):
    arrays = {"images": COLOUR, "labels": LABELS, "classes": 4} | change
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    refused(tmp_path / "a.npz", message)


def test_read_npz_reads_what_is_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", a=GREY, b=LABELS, c=np.array([{}], object))
    assert list(read_npz(tmp_path / "a.npz", ["b", "d"])) == ["b"]


def test_draws_are_nested_and_complete():
    whole = draw(1000, None, "mnist/test")
    assert whole.dtype == np.int64 and sorted(whole.tolist()) == list(range(1000))
    for n in (0, 1, 5, 10, 999, 1000):
        assert draw(1000, n, "mnist/test").tolist() == whole[:n].tolist()
    assert draw(1000, 10, "mnist/test").tolist() != draw(1000, 10, "mnist/train").tolist()


def test_draws_stay_the_same_for_ever():
    assert draw(10_000, 5, "mnist").tolist() == [5995, 577, 7135, 9310, 5235]
    assert draw(10, None, "é").tolist() == [9, 7, 8, 0, 1, 6, 4, 5, 3, 2]


def test_a_draw_is_unbiased():
    """Over many names each place is drawn about equally often, and early as often as late."""
    counts, where = np.zeros(50), []
    for i in range(2000):
        drawn = draw(50, 10, f"name {i}")
        counts[drawn] += 1
        where.append(drawn.mean())
    # Each count is binomial (2000, 0.2), of variance 320; the sum of squares is about chi-squared with 49 degrees.
    assert ((counts - 400) ** 2 / 320).sum() < 95
    assert abs(np.mean(where) - 24.5) < 4 * np.std(where) / np.sqrt(2000)


@pytest.mark.parametrize("n", [11, 10**30, -1])
def test_more_than_there_are_cannot_be_drawn(n):
    with pytest.raises(UserError, match=f"mnist: {n:,} examples asked for, there are 10: ask for no more"):
        draw(10, n, "mnist")
