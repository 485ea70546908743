"""Records: what an evaluation leaves behind. A tidy CSV, one row a measurement, and its provenance as JSON.

Columns: dataset, run, seed, metric, the metric's parameters, n (examples measured), value.
"""

import json
import platform
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dprobust.errors import UserError
from dprobust.files import replaced, sha256, write_json

LIBRARIES = ("torch", "numpy", "randomgen", "opacus", "pandas", "matplotlib", "snakemake")


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as CSV; numbers are written so that they read back exactly."""
    write_table(path, pd.DataFrame(rows))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, without its index."""
    with replaced(path) as temporary:
        table.to_csv(temporary, index=False)


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """The rows of several records as one table.

    Raises:
        UserError: a record is not whole.
    """
    return pd.concat([_rows(path) for path in paths], ignore_index=True)


def _rows(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except ValueError as error:  # that of pandas' parser, of an empty file, of bytes that are no text
        raise _damaged(path, error) from None


def read_json(path: Path) -> dict[str, Any]:
    """The record of a training as `write_provenance` wrote it.

    Raises:
        UserError: the file is not whole.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged ({' '.join(str(error).split())}); remove it and run again")


def write_text(path: Path, text: str) -> None:
    """Write a text in one step."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed .npz; equal arrays are equal bytes."""
    with replaced(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of a file, each read when it is asked for.

    Raises:
        UserError: the file is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = self._read(lambda file: tuple(file.files))

    def _read(self, what: Callable[[Any], Any]) -> Any:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return what(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _damaged(self.path, error) from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(lambda file: file[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_provenance(path: Path, settings: dict[str, Any], inputs: Iterable[Path], **more: Any) -> None:
    """Write how a result came about: settings, input hashes, versions, commit.

    Nothing in it depends on the time of the day or the speed of the machine, so the same work leaves the same bytes;
    seconds and memory are in the benchmark file of the job.
    """
    write_json(
        path,
        {
            "settings": settings,
            "inputs": {str(file): sha256(file) for file in inputs},
            "versions": versions(),
            "platform": f"{platform.system()} {platform.machine()}",
            "commit": commit(),
            **more,
        },
    )


def versions() -> dict[str, str]:
    """Versions of Python and of those of `LIBRARIES` that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The git commit of the code, with ``+changes`` if it was edited since; None outside of a repository."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return head and head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
