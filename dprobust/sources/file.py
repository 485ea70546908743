"""A file of a dataset, known by the checksum of its content."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

from dprobust.errors import UserError

CHUNK = 1 << 20


class ChecksumError(UserError):
    """A file is not what it should be: corrupted, truncated or swapped."""


@dataclass(frozen=True)
class File:
    """A file of a dataset.

    Attributes:
        name: its name in the data folder.
        checksum: of its content, decompressed; SHA-256 (64 hexadecimal digits) or, where no more is known, MD5 (32).
        size: in bytes, decompressed; no more than this is ever unpacked. None: not known, and it is not compressed.
        aliases: other names by which mirrors have it.
        gzipped: mirrors may have it as ``NAME.gz``.
        overridden: the checksum is not the dataset's but one that the user gives, and so vouches for.
    """

    name: str
    checksum: str
    size: int | None = None
    aliases: tuple[str, ...] = ()
    gzipped: bool = False
    overridden: bool = False

    @property
    def algorithm(self) -> str:
        return {32: "md5", 64: "sha256"}[len(self.checksum)]

    @property
    def expected(self) -> str:
        """What the file should be, for messages."""
        note = "the override" if self.overridden else f"{self.size} bytes" if self.size else ""
        return f"expected {self.checksum}" + (f" ({note})" if note else "")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The file names to look for, the compressed (smaller) form first."""
        suffixes = (".gz", "") if self.gzipped else ("",)
        return tuple(name + suffix for name in (self.name, *self.aliases) for suffix in suffixes)

    def override(self, sha256: str) -> Self:
        """The file that has this SHA-256, in place of the dataset's own."""
        return replace(self, checksum=sha256, overridden=True)

    def open(self, path: Path) -> BinaryIO:
        """The content of `path` as it is kept: decompressed if it is gzip."""
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        return gzip.open(path) if compressed else path.open("rb")

    def verify(self, path: Path) -> dict[str, str]:
        """Check the content of `path`.

        Returns:
            How it was ``"verified"``, and its hash under the name of the algorithm.

        Raises:
            ChecksumError: with the found and the expected hash.
        """
        digest, size, limit = hashlib.new(self.algorithm), 0, self.size or path.stat().st_size
        try:
            with self.open(path) as stream:
                # One byte more than expected is enough to see that a file is too long: no bomb is unpacked.
                while size <= limit and (chunk := stream.read(min(CHUNK, limit + 1 - size))):
                    digest.update(chunk)
                    size += len(chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ChecksumError(f"{path}: broken gzip file ({error}); {self.algorithm} {self.expected}") from error
        if digest.hexdigest() != self.checksum:
            length = f"more than {limit}" if size > limit else size
            found = f"found {self.algorithm} {digest.hexdigest()} ({length} bytes)"
            raise ChecksumError(f"{path}: {found}, {self.expected}")
        verified = "sha256 override" if self.overridden else "official checksum"
        return {"verified": verified, self.algorithm: self.checksum}
