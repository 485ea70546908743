"""Data as arrays: all that a job needs of it, wherever it comes from (`dprobust.sources` gets it). NumPy only."""

import hashlib
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dprobust.errors import UserError
from dprobust.files import replaced


@dataclass(frozen=True)
class Split:
    """A part of a dataset in memory.

    Attributes:
        images: uint8 (N, C, H, W), 0 to 255; or features of images, float32 (N, F), or of each image and its
            mirror image, float32 (N, 2, F).
        labels: int64 (N,), 0 to classes - 1.
        classes: number of classes, also of those that no example here has; None: not told.
        shape: (C, H, W) of an image, also where `images` are features of images.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int | None = None
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "shape", self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> "Split":
        """The examples at these places, in this order.

        Args:
            index: integers (n,), 0 to N - 1, as `draw` gives them; or a slice.
        """
        return Split(self.images[index], self.labels[index], self.classes, self.shape)

    def drawn(self, n: int | None, name: str) -> "Split":
        """The first `n` examples of a draw (`draw`), in the order that they have here; all of them if `n` is None."""
        return self.take(np.sort(draw(len(self), n, name)))


def draw(total: int, n: int | None, name: str) -> np.ndarray:
    """The examples that a study uses: the first `n` of an order of all `total` that depends on `name` alone.

    The first examples of a file need not be like the rest: on MNIST's first 5,000 test images networks err more often
    than on its last 5,000. With one name, a smaller draw is the beginning of a larger one. The order is the same with
    every version of NumPy: the stream of RandomState is frozen (NEP 19).

    Args:
        total: number of examples there are.
        n: number asked for; None: all.
        name: names the draw, for example the dataset.

    Returns:
        Places, int64 (n,), each at most once, in the order of the draw.

    Raises:
        UserError: more are asked for than there are.
    """
    if n is not None and not 0 <= n <= total:
        raise UserError(f"{name}: {n:,} examples asked for, there are {total:,}: ask for no more than that")
    seed = np.frombuffer(hashlib.sha256(name.encode()).digest(), ">u4")
    order = np.random.RandomState(seed.astype(np.uint32)).permutation(total)  # noqa: NPY002
    return order[:n].astype(np.int64)


def save(path: Path, images: np.ndarray, labels: np.ndarray, classes: int, shape: Sequence[int] = ()) -> None:
    """Write a split as .npz, which `load` reads; equal arrays are equal bytes.

    Args:
        path: of the file.
        images: uint8 (N, H, W) or (N, C, H, W), or features, float32 (N, F) or (N, 2, F).
        labels: integers (N,), 0 to classes - 1.
        classes: number of classes.
        shape: (C, H, W) of the images that features are of.
    """
    with replaced(path) as temporary, temporary.open("wb") as file:
        pack(file, images, labels, classes, shape)


def pack(file: BinaryIO, images: np.ndarray, labels: np.ndarray, classes: int, shape: Sequence[int] = ()) -> None:
    """Write what `save` writes to an open file. Grey images are kept without their one channel."""
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    told = {"shape": np.array(shape, np.int64)} if shape else {}
    np.savez(file, images=images, labels=labels, classes=np.int64(classes), **told)


def load(path: Path) -> Split:
    """Read a split that `save` wrote.

    Raises:
        UserError: no such file, or damaged, or not a split.
    """
    arrays = read_npz(path)
    if missing := {"images", "labels", "classes"} - arrays.keys():
        raise UserError(f"{path}: no array {' or '.join(sorted(missing))}; delete the file to have it made again")
    images, labels, classes = arrays["images"], arrays["labels"], arrays["classes"]
    if fault := _fault(images, labels, classes):
        raise UserError(f"{path}: {fault}; delete the file to have it made again")
    if images.ndim == 3 and images.dtype == np.uint8:
        images = images[:, None]
    shape = tuple(arrays["shape"].tolist()) if "shape" in arrays else ()
    return Split(images, labels.astype(np.int64), int(classes), shape)


def _fault(images: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> str | None:
    if (images.dtype.name, images.ndim) not in (("uint8", 3), ("uint8", 4), ("float32", 2), ("float32", 3)):
        return f"images: found {images.dtype} {images.shape}, expected uint8 images or float32 features"
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        return f"labels: found {labels.dtype} {labels.shape}, expected integers {images.shape[:1]}"
    if classes.shape != () or not np.issubdtype(classes.dtype, np.integer):
        return f"classes: found {classes.dtype} {classes.shape}, expected one integer"
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        return f"labels: found {labels.min()} to {labels.max()}, expected 0 to {classes - 1}"
    return None


def read_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of an .npz. Each has a checksum (CRC-32) in the file, which is checked; pickles are refused.

    Args:
        path: of the file.
        names: of the arrays to read, where they are there; None: all.

    Raises:
        UserError: no such file, or damaged, or not an .npz of plain arrays.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no whole zip file")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays if names is None or name in names}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    # A damaged zip file can fail in any way that Python knows.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: damaged, or not an .npz of plain arrays ({reason})") from error
