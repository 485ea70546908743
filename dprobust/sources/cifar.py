"""CIFAR-10 and CIFAR-100, whose batches are pickles in an archive (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dprobust.errors import UserError
from dprobust.sources.archives import Archive, read_members
from dprobust.sources.base import Source

if TYPE_CHECKING:
    import numpy as np

    from dprobust.sources.base import Splits


def cifar(archive: Archive, splits: Mapping[str, Collection[str]], label_key: bytes, names: tuple[str, ...]) -> Source:
    """A dataset of this family.

    Args:
        archive: the file it is made of.
        splits: split -> members of the archive, in order.
        label_key: key of the labels in a batch.
        names: of the classes.
    """
    return Source(
        shape=(3, 32, 32),
        classes=len(names),
        sizes={"train": 50_000, "test": 10_000},
        files=(archive,),
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        parse=partial(_parse, archive.name, splits, label_key, len(names)),
        names=names,
    )


def _parse(archive: str, splits: Mapping[str, Collection[str]], label_key: bytes, classes: int, folder: Path) -> Splits:
    import numpy as np  # planning reads no file

    path = folder / archive
    batches = {}
    for name, content in read_members(path, [name for names in splits.values() for name in names]):
        try:
            batches[name] = read_batch(content, label_key, classes)
        except UserError as error:
            raise UserError(f"{path}: {name}: {error}") from error
    return {
        split: tuple(np.concatenate(arrays) for arrays in zip(*(batches[name] for name in names), strict=True))
        for split, names in splits.items()
    }


def read_batch(content: BinaryIO, label_key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch in the Python format of this family.

    Returns:
        images, uint8 (n, 3, 32, 32), and labels, uint8 (n,).

    Raises:
        UserError: not such a batch, or a pickle that is more than data.
    """
    import numpy as np

    from dprobust.sources.unpickling import unpickle_dict

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
