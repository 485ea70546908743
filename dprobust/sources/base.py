"""What a source of data is. Planning a study asks it for facts and identity; the job that gets the data, for the rest.

Nothing here needs NumPy: what does is imported by what reads data.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dprobust.errors import UserError
from dprobust.files import sha256
from dprobust.settings import Facts
from dprobust.sources.file import File

if TYPE_CHECKING:
    import numpy as np

    Splits = dict[str, tuple[np.ndarray, np.ndarray]]
    """"train" and "test" -> images, uint8 (N, H, W) or (N, C, H, W), and labels, integers (N,)."""


@dataclass(frozen=True)
class Source:
    """What is known of a dataset before it is downloaded.

    Attributes:
        shape: (C, H, W) of an image.
        classes: number of classes.
        sizes: split ("train", "test") -> number of examples.
        files: the files it is made of.
        mirrors: where to get them, in the order in which to try (`dprobust.sources.download`).
        parse: folder with the verified files -> split -> images, uint8 (N, C, H, W) or (N, H, W), and labels,
            integers (N,).
        names: of the classes, where they are known.
    """

    shape: tuple[int, int, int]
    classes: int
    sizes: Mapping[str, int]
    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    parse: Callable[[Path], Splits]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Found:
    """Data that was got.

    Attributes:
        splits: the images and labels of "train" and "test".
        classes: number of classes.
        names: of the classes, where they are known.
        files: what the data was made from -> ``"origin"``, how it was ``"verified"``, its hash.
    """

    splits: Splits
    classes: int
    names: tuple[str, ...] | None
    files: Mapping[str, Mapping[str, str]]


class Origin(Protocol):
    """A place that data comes from, as the configuration names it."""

    def facts(self) -> Facts:
        """What is known of it before a job runs."""

    def identity(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """What fixes the content, as plain texts: where it stays the same, nothing need be made again."""

    def slug(self) -> str:
        """The name of its folder under data/."""

    def find(self, folder: Path, mirrors: Iterable[str], sha256: Mapping[str, str]) -> Found:
        """Get the data; `folder` is where files are kept."""


def slug_of_path(spec: str) -> str:
    """A name for a folder, of a path: what is safe of its last part, and eight digits of the hash of the path."""
    stem = re.sub("[^A-Za-z0-9_]+", "_", Path(spec).stem).strip("_")[:40] or "data"
    return f"{stem}-{hashlib.sha256(Path(spec).as_posix().encode()).hexdigest()[:8]}"


def refuse_overrides(spec: str, mirrors: Iterable[str], sha256: Mapping[str, str]) -> None:
    """Raise a UserError if there are settings that only datasets of known files have."""
    for key, value in (("mirrors", list(mirrors)), ("sha256", sha256)):
        if value:
            raise UserError(f"{key}: {spec} takes none; only datasets made of known files do")


def content_hash(path: Path) -> str:
    """The SHA-256 of a file; computed once for as long as size and time of the file stay the same.

    Raises:
        UserError: no such file.
    """
    try:
        status = path.stat()
        return _hash(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; it is given as the source of a dataset") from error


@cache
def _hash(path: Path, size: int, modified: int) -> str:
    return sha256(path)
