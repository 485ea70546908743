"""A dataset as a folder of pictures by class: FOLDER/train/CLASS/*.png and FOLDER/test/CLASS/*.png."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dprobust.errors import UserError
from dprobust.settings import Facts
from dprobust.sources.base import Found, content_hash, refuse_overrides, slug_of_path

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of pictures; other files are left alone. As in torchvision's ImageFolder."""


@dataclass(frozen=True)
class ImageFolder:
    """A folder with a folder for each split, in which each class has a folder of pictures.

    Classes are numbered in the order of their names, and pictures come class by class in the order of theirs, as in
    torchvision's ImageFolder; but grey pictures stay grey. All have one size and are either grey or RGB.
    """

    spec: str

    @property
    def path(self) -> Path:
        return Path(self.spec).expanduser()

    def facts(self) -> Facts:
        """Number of classes and of pictures; the shape of the first picture."""
        classes = self.classes()
        train, test = (self.pictures(split) for split in ("train", "test"))
        picture = _open(train[0][0])
        shape = (len(picture.getbands()), picture.height, picture.width)
        return Facts(shape=shape, classes=len(classes), train=len(train), test=len(test))

    def identity(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """A hash over the names and the contents of all pictures."""
        refuse_overrides(self.spec, (), sha256)
        return {"source": "image folder", "sha256": self._hash()}

    def slug(self) -> str:
        """The folder's name and a part of the hash of its path, as it is written."""
        return slug_of_path(self.spec)

    def find(self, folder: Path, mirrors: Iterable[str], sha256: Mapping[str, str]) -> Found:
        """Read the pictures.

        Raises:
            UserError: no such folders, other classes in test than in train, a class without pictures, a picture that
                cannot be read, or pictures that are not alike; the message names it.
        """
        refuse_overrides(self.spec, mirrors, sha256)
        from dprobust.sources.examine import gather  # NumPy, which planning does not need

        splits, classes = {}, self.classes()
        for split in ("train", "test"):
            pictures = self.pictures(split)
            where = f"{self.path / split} ({len(pictures)} pictures by class and name)"
            splits[split] = gather(where, ((_open(path), label) for path, label in pictures), len(pictures))
        shapes = [splits[split][0].shape[1:] for split in ("train", "test")]
        if shapes[0] != shapes[1]:
            raise UserError(f"{self.path}: pictures of shape {shapes[0]} in train, but {shapes[1]} in test")
        file = {"origin": self.spec, "verified": "as given", "sha256": self._hash()}
        return Found(splits, len(classes), classes, {self.path.name: file})

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted.

        Raises:
            UserError: there are none, or train and test have not the same.
        """
        train, test = (self._folders(split) for split in ("train", "test"))
        if train != test:
            odd = sorted(set(train) ^ set(test))[0]
            place = "train" if odd in train else "test"
            raise UserError(f"{self.path}: class {odd!r} is in {place} only; train and test need the same folders")
        return train

    def _folders(self, split: str) -> tuple[str, ...]:
        place = self.path / split
        try:
            names = tuple(sorted(entry.name for entry in os.scandir(place) if entry.is_dir()))
        except OSError as error:
            raise UserError(f"{place}: {error.strerror}; expected a folder of pictures for each class in it") from error
        if not names:
            raise UserError(f"{place}: no folders; expected one of pictures for each class")
        return names

    def pictures(self, split: str) -> list[tuple[Path, int]]:
        """The pictures of a split and their classes, in order.

        Raises:
            UserError: a class has none.
        """
        pictures = []
        for label, name in enumerate(self._folders(split)):
            found = [(path, label) for path in _walk(self.path / split / name)]
            if not found:
                raise UserError(f"{self.path / split / name}: no pictures ({', '.join(EXTENSIONS)})")
            pictures += found
        return pictures

    def _hash(self) -> str:
        digest = hashlib.sha256()
        self.classes()
        for split in ("train", "test"):
            for path, _ in self.pictures(split):
                digest.update(f"{path.relative_to(self.path).as_posix()}\0{content_hash(path)}\n".encode())
        return digest.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in sorted(os.walk(folder, followlinks=True)):
        yield from (Path(root, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS))


def _open(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    # A damaged picture can fail in any way that Python knows.
    except Exception as error:
        raise UserError(f"{path}: not a picture that can be read ({' '.join(str(error).split())[:200]})") from error
