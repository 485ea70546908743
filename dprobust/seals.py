"""Seals: the SHA-256 of what a job has made, kept beside it, so that damage is noticed before it is used.

A seal is a text as `sha256sum` writes it, ``.NAME.sha256`` beside the job's files in that folder, NAME being the first
of them: ``cd FOLDER && sha256sum -c .*.sha256`` checks without this package. Files without a seal, a user's own among
them, are taken as they are.
"""

import logging
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from dprobust.errors import UserError
from dprobust.files import replaced, sha256

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"
"""Suffix of a file that is put aside."""


def seal(paths: Iterable[Path]) -> None:
    """Write the seals of files that one job has made, one seal a folder."""
    paths = list(paths)
    for folder, files in groupby(sorted(paths, key=lambda path: (path.parent, paths.index(path))), lambda p: p.parent):
        lines = [(path.name, f"{sha256(path)}  {path.name}\n") for path in files]
        with replaced(folder / f".{lines[0][0]}.sha256") as temporary:
            temporary.write_text("".join(line for _, line in lines), encoding="utf-8")


def sealed(folder: Path) -> Mapping[str, str]:
    """Name -> SHA-256 of the sealed files of a folder; what is no line of a seal is passed over."""
    found = {}
    for path in sorted(folder.glob(".*.sha256")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            if name:
                found[name] = digest
    return found


def broken(paths: Iterable[Path]) -> list[Path]:
    """Those of the files that are there and are not what their seals say."""
    seals: dict[Path, Mapping[str, str]] = {}
    found = []
    for path in paths:
        if path.parent not in seals:
            seals[path.parent] = sealed(path.parent)
        expected = seals[path.parent].get(path.name)
        if expected and path.is_file() and sha256(path) != expected:
            found.append(path)
    return found


def check(paths: Iterable[Path]) -> None:
    """Refuse files that are not what their seals say, and put them aside so that the next run makes them again.

    Raises:
        UserError: at least one is not; all are named.
    """
    paths = list(paths)
    if damaged := broken(paths):
        for path in damaged:
            path.replace(path.with_name(path.name + DAMAGED))
        one = len(damaged) == 1
        raise UserError(
            f"{', '.join(map(str, damaged))}: damaged, not the bytes that were written here; put aside as "
            f"{f'{damaged[0]}{DAMAGED}' if one else f'*{DAMAGED}'}; run again, and {'it is' if one else 'they are'} "
            "made anew"
        )
    # Written before there is anything to write: a disk that is full by then has a place for what is told of it.
    logger.info("%d inputs, none of them damaged", len(paths))
