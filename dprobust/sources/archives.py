"""Tar archives: known by their members, and read without a trace on the disk."""

import gzip
import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dprobust.errors import UserError
from dprobust.files import sha256
from dprobust.sources.file import CHUNK, ChecksumError, File

LIMIT = 400_000_000
"""Bytes that an archive may hold, decompressed. Pixels that Python 3 pickled take up to twice their number."""


@dataclass(frozen=True)
class Archive(File):
    """A .tar.gz that is kept packed.

    Its checksum is that of the archive itself. Unless that is overridden, an archive packed by somebody else is as
    good if its members are the official ones.

    Attributes:
        members: the names of the members that are read -> their MD5.
    """

    members: Mapping[str, str] = field(kw_only=True)

    def open(self, path: Path) -> BinaryIO:
        """The content of `path` as it is kept: packed."""
        return path.open("rb")

    def verify(self, path: Path) -> dict[str, str]:
        """Check the archive, or else its members.

        Returns:
            How it was ``"verified"`` and the archive's ``"sha256"``.

        Raises:
            ChecksumError: with what was found and expected, and the SHA-256 with which to override.
        """
        try:
            told = super().verify(path)
        except ChecksumError as error:
            if self.overridden:
                raise
            try:
                self._verify_members(path)
            except UserError as fault:
                raise ChecksumError(
                    f"{error}; nor are its members the official ones ({str(fault).removeprefix(f'{path}: ')}); "
                    f"if you trust it all the same, override the checksum with its sha256 {sha256(path)}"
                ) from error
            told = {"verified": "checksums of the members"}
        return told | {"sha256": sha256(path)}

    def _verify_members(self, path: Path) -> None:
        for name, stream in read_members(path, self.members):
            found = hashlib.file_digest(stream, "md5").hexdigest()
            if found != self.members[name]:
                raise ChecksumError(f"{name} has md5 {found}, expected {self.members[name]}")


class _Limited:
    """A stream that ends in an error after `LIMIT` bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.left = stream, LIMIT

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise ValueError(f"more than {LIMIT} bytes when decompressed")
        return chunk


def read_members(path: Path, names: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Yield name and content, in memory, of each of the members called exactly `names`, in the archive's order.

    Raises:
        UserError: no .tar.gz, or truncated, or more than `LIMIT` bytes; a name that is missing or there twice; any
            member, asked for or not, that is a link or a device, or whose name leads out of the archive.
    """
    missing = set(names)
    try:
        with gzip.open(path) as packed:
            stream = _Limited(packed)  # headers pass it, too
            with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
                for member in archive:
                    _check_member(member, names)
                    if member.name in missing:
                        missing.remove(member.name)
                        content = io.BytesIO()
                        shutil.copyfileobj(archive.extractfile(member), content, CHUNK)
                        content.seek(0)
                        yield member.name, content
                    elif member.name in names:
                        raise ValueError(f"member {member.name} is there twice")
            while stream.read(CHUNK):  # to the end, where gzip has a checksum
                pass
        if missing:
            raise ValueError(f"no member {' or '.join(sorted(missing))}")
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error


def _check_member(member: tarfile.TarInfo, names: Collection[str]) -> None:
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"member {member.name!r} leads out of the archive")
    if member.issparse() or not (member.isreg() or (member.isdir() and member.name not in names)):
        raise ValueError(f"member {member.name!r} is not a regular file")
    if member.size > LIMIT:
        raise ValueError(f"member {member.name!r} has {member.size} bytes, more than {LIMIT}")
