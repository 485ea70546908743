"""IDX files, the format of MNIST and of datasets made in its likeness."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dprobust.errors import UserError
from dprobust.sources.base import Source
from dprobust.sources.file import File

if TYPE_CHECKING:
    import numpy as np

    from dprobust.sources.base import Splits

LENGTHS = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
"""MNIST's files and their bytes, decompressed."""


def like_mnist(sha256: Mapping[str, str], mirrors: tuple[str, ...], names: tuple[str, ...]) -> Source:
    """A dataset of MNIST's shape, sizes and file names.

    Args:
        sha256: file name -> SHA-256 of its content, decompressed.
        mirrors: as in `Source`.
        names: of the ten classes.
    """
    return Source(
        shape=(1, 28, 28),
        classes=10,
        sizes={"train": 60_000, "test": 10_000},
        files=tuple(
            File(name, digest, LENGTHS[name], aliases=(name.replace("-idx", ".idx"),), gzipped=True)
            for name, digest in sha256.items()
        ),
        mirrors=mirrors,
        parse=parse,
        names=names,
    )


def parse(folder: Path) -> Splits:
    """Read the four files of a dataset like MNIST."""
    images, labels = "images-idx3-ubyte", "labels-idx1-ubyte"
    return {
        split: (read_idx(folder / f"{prefix}-{images}"), read_idx(folder / f"{prefix}-{labels}"))
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzip-compressed or not.

    Raises:
        UserError: wrong magic number, element type other than unsigned byte, or a length that is not the shape's.
    """
    import numpy as np  # planning reads no file

    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: broken gzip file ({error})") from error
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
