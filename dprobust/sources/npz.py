"""A dataset in an .npz of one's own: uint8 images and integer labels, under the names below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dprobust.errors import UserError
from dprobust.settings import Facts
from dprobust.sources.base import Found, content_hash, refuse_overrides, slug_of_path

if TYPE_CHECKING:
    import numpy as np

NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
"""Of the arrays; the second is Keras'."""


@dataclass(frozen=True)
class Npz:
    """An .npz with the arrays of one line of `NAMES`.

    Images are uint8 (N, H, W), (N, C, H, W) or (N, H, W, C); (N, A, B, C) is the last if C, and not A, is 1 or 3.
    Labels are integers (N,) or (N, 1), each of 0 to K - 1 in the training set.
    """

    spec: str

    @property
    def path(self) -> Path:
        return Path(self.spec).expanduser()

    def facts(self) -> Facts:
        """All of them, from the file."""
        content_hash(self.path)  # there is such a file
        return _facts(self, self.path.stat().st_mtime_ns)

    def identity(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """The SHA-256 of the file."""
        refuse_overrides(self.spec, (), sha256)
        return {"source": "npz", "sha256": content_hash(self.path)}

    def slug(self) -> str:
        """The file's name and a part of the hash of its path, as it is written."""
        return slug_of_path(self.spec)

    def find(self, folder: Path, mirrors: Iterable[str], sha256: Mapping[str, str]) -> Found:
        """Read the file.

        Raises:
            UserError: no such file, damaged, or an array is missing or not as described; the message names it.
        """
        refuse_overrides(self.spec, mirrors, sha256)
        splits, classes = self._read()
        file = {"origin": self.spec, "verified": "as given", "sha256": content_hash(self.path)}
        return Found(splits, classes, None, {self.path.name: file})

    def _read(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
        from dprobust.arrays import read_npz  # NumPy, which planning seldom needs
        from dprobust.sources.examine import count_classes

        arrays = read_npz(self.path, [name for line in NAMES for name in line])
        names = next((line for line in NAMES if set(line) <= arrays.keys()), None)
        if names is None:
            expected = " or ".join(", ".join(line) for line in NAMES)
            raise UserError(f"{self.path}: found {', '.join(arrays) or 'none'} of the arrays, expected {expected}")
        x_train, y_train, x_test, y_test = (arrays[name] for name in names)
        splits = {
            "train": (self._images(names[0], x_train), self._labels(names[1], y_train, len(x_train))),
            "test": (self._images(names[2], x_test), self._labels(names[3], y_test, len(x_test))),
        }
        shapes = [splits[split][0].shape[1:] for split in ("train", "test")]
        if shapes[0] != shapes[1]:
            raise UserError(f"{self.path}: {names[2]}: images {shapes[1]}, expected {shapes[0]} as in {names[0]}")
        return splits, count_classes(str(self.path), splits["train"][1], splits["test"][1])

    def _images(self, name: str, images: np.ndarray) -> np.ndarray:
        if images.dtype.name != "uint8" or images.ndim not in (3, 4) or 0 in images.shape:
            expected = "uint8 (N, H, W), (N, C, H, W) or (N, H, W, C), pixels 0 to 255"
            raise UserError(f"{self.path}: {name}: found {images.dtype} {images.shape}, expected {expected}")
        if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
            images = images.transpose(0, 3, 1, 2)
        return images

    def _labels(self, name: str, labels: np.ndarray, n: int) -> np.ndarray:
        if labels.dtype.kind not in "iu" or labels.shape not in ((n,), (n, 1)):
            raise UserError(f"{self.path}: {name}: found {labels.dtype} {labels.shape}, expected integers ({n},)")
        return labels.reshape(n)


@cache
def _facts(npz: Npz, modified: int) -> Facts:
    splits, classes = npz._read()
    (images, labels), (_, test_labels) = splits["train"], splits["test"]
    shape = images.shape[1:] if images.ndim == 4 else (1, *images.shape[1:])
    return Facts(shape=shape, classes=classes, train=len(labels), test=len(test_labels))
