"""Datasets of known files: each is verified by its checksum, wherever it comes from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dprobust.errors import UserError
from dprobust.settings import Facts
from dprobust.sources.archives import Archive
from dprobust.sources.base import Found, Source
from dprobust.sources.file import File


@dataclass(frozen=True)
class Known:
    """A `Source` under its name."""

    name: str
    source: Source

    def facts(self) -> Facts:
        """All of them."""
        sizes = self.source.sizes
        return Facts(shape=self.source.shape, classes=self.source.classes, train=sizes["train"], test=sizes["test"])

    def identity(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """The checksums of the files, or of those that are used in their place."""
        return {"source": self.name, "files": {file.name: _content(file) for file in self.files(sha256)}}

    def slug(self) -> str:
        """The name."""
        return self.name

    def files(self, sha256: Mapping[str, str]) -> list[File]:
        """The files, some in place of the dataset's own: file name -> SHA-256.

        Raises:
            UserError: no file has such a name, or that is no SHA-256.
        """
        names = [file.name for file in self.source.files]
        for file, digest in sha256.items():
            if file not in names:
                raise UserError(f"sha256: {self.name} has no file {file!r}, only {', '.join(names)}")
            if not re.fullmatch("[0-9a-fA-F]{64}", digest):
                raise UserError(f"sha256: {file}: {digest!r} is not a SHA-256 (64 hexadecimal digits)")
        return [file.override(sha256[file.name].lower()) if file.name in sha256 else file for file in self.source.files]

    def find(self, folder: Path, mirrors: Iterable[str], sha256: Mapping[str, str]) -> Found:
        """Fetch, verify and parse the files. With an override the number of examples is free.

        Raises:
            UserError: no good copy of a file could be had, or the content is not the dataset's.
        """
        from dprobust.sources.download import fetch  # needs requests, which planning does not

        told = fetch(self.files(sha256), folder, (*mirrors, *self.source.mirrors))
        splits = self.source.parse(folder)
        shape = self.source.shape
        for split, (images, labels) in splits.items():
            n = max(1, len(images)) if sha256 else self.source.sizes[split]
            shapes = {(n, *shape), (n, *shape[1:])} if shape[0] == 1 else {(n, *shape)}
            if images.shape not in shapes or labels.shape != (n,) or labels.max() >= self.source.classes:
                found = f"{split} images {images.shape} and labels {labels.shape}"
                raise UserError(f"{folder}: {found} are not {self.name}'s")
        return Found(splits, self.source.classes, self.source.names, told)


def _content(file: File) -> Any:
    """An archive that was packed again has the same content if its members do."""
    return dict(file.members) if isinstance(file, Archive) and not file.overridden else file.checksum
