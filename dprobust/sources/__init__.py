"""How data is got: a dataset's source, as the configuration names it, becomes arrays that every job reads.

A source is a text:

* ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100``, or the name of a dataset of one's own: known files, verified
  by checksums. Each is a module with a `SOURCE`;
* ``torchvision:CLASS``: an image classification dataset of torchvision, for example ``torchvision:KMNIST``;
* ``FILE.npz``: arrays of one's own (`dprobust.sources.npz`);
* ``FOLDER/``: pictures by class (`dprobust.sources.image_folder`).

`facts`, `identity` and `slug` are for planning: for known files and torchvision they read nothing, and import neither
NumPy nor torch nor anything that downloads. `prepare` is for the job.
"""

import difflib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dprobust.errors import UserError
from dprobust.files import named, replaced, write_json
from dprobust.settings import Facts
from dprobust.sources import cifar10, cifar100, fashion_mnist, mnist
from dprobust.sources.base import Origin, Source
from dprobust.sources.file import File
from dprobust.sources.image_folder import ImageFolder
from dprobust.sources.known import Known
from dprobust.sources.npz import Npz
from dprobust.sources.torchvision_source import PREFIX, Torchvision

__all__ = ["SOURCES", "File", "Source", "facts", "get", "identity", "prepare", "slug"]

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "mnist": mnist.SOURCE,
        "fashion_mnist": fashion_mnist.SOURCE,
        "cifar10": cifar10.SOURCE,
        "cifar100": cifar100.SOURCE,
    }
)
"""The datasets of known files, by name."""

NONE: Mapping[str, Any] = MappingProxyType({})


def get(source: str, own: Mapping[str, Source] = NONE) -> Origin:
    """The place that a source names.

    Args:
        source: as the configuration has it.
        own: name -> datasets to look among first.

    Raises:
        UserError: it is neither a known name nor looks like a path.
    """
    for known in (own, SOURCES):
        if source in known:
            return Known(source, known[source])
    if source.startswith(PREFIX):
        return Torchvision(source.removeprefix(PREFIX))
    if source.endswith(".npz"):
        return Npz(source)
    if "/" in source or "\\" in source or (source and Path(source).is_dir()):
        return ImageFolder(source)
    names = [*own, *(name for name in SOURCES if name not in own)]
    near = difflib.get_close_matches(source, names, 1)
    raise UserError(
        f"source: found {source!r}, expected one of {', '.join(names)}, or {PREFIX}CLASS, or the path of an .npz or of "
        "a folder (with a /)" + (f"; did you mean {near[0]!r}?" if near else "")
    )


def facts(source: str, own: Mapping[str, Source] = NONE) -> Facts:
    """What is known of a dataset before a job has run; None where only its files tell, and they are not there yet."""
    return get(source, own).facts()


def identity(source: str, sha256: Mapping[str, str] = NONE, own: Mapping[str, Source] = NONE) -> dict[str, Any]:
    """What fixes the content of a dataset, as plain texts: what is made of it need be made again only if this changes.

    Args:
        source: as the configuration has it.
        sha256: file name -> SHA-256 of a file to use that is not the official one.
        own: name -> datasets to look among first.

    Raises:
        UserError: an override that cannot be, or no such file or folder.
    """
    return get(source, own).identity(sha256)


def slug(source: str, own: Mapping[str, Source] = NONE) -> str:
    """The name of the dataset's folder under data/: letters, digits, dashes and underscores."""
    return get(source, own).slug()


def prepare(
    source: str,
    folder: Path,
    mirrors: Iterable[str] = (),
    sha256: Mapping[str, str] = NONE,
    own: Mapping[str, Source] = NONE,
) -> None:
    """Get a dataset and write `folder`/train.npz and test.npz (`dprobust.arrays.load`) and source.json, all or none.

    The last holds ``source``, ``shape``, ``classes``, ``sizes``, ``class_names`` (null: not known) and ``files``: of
    each its ``origin``, how it was ``verified``, and its hash.

    Args:
        source: as the configuration has it.
        folder: where files are kept, or were placed by hand.
        mirrors: mirrors to try before the dataset's own (`dprobust.sources.download`).
        sha256: file name -> SHA-256 of a file to use that is not the official one. The number of examples is then free.
        own: name -> datasets to look among first.

    Raises:
        UserError: no good copy of a file could be had, or its content is not the dataset's.
        OSError: a file cannot be written; it names the file.
    """
    from dprobust import arrays  # NumPy, which planning does not need

    origin = get(source, own)
    found = origin.find(folder, mirrors, sha256)
    images = found.splits["train"][0]
    told = {
        "source": source,
        "shape": list(images.shape[1:] if images.ndim == 4 else (1, *images.shape[1:])),
        "classes": found.classes,
        "sizes": {split: len(labels) for split, (_, labels) in found.splits.items()},
        "class_names": found.names and list(found.names),
        "files": found.files,
    }
    if not sha256:
        _compare(source, origin.facts(), told)
    with ExitStack() as stack:
        for split, (images, labels) in found.splits.items():
            path = folder / f"{split}.npz"
            temporary = stack.enter_context(replaced(path))
            labels = labels.astype("uint8" if found.classes <= 256 else "int64")
            with named(path), temporary.open("wb") as file:
                arrays.pack(file, images, labels, found.classes)
        write_json(folder / "source.json", told)


def _compare(source: str, expected: Facts, told: Mapping[str, Any]) -> None:
    found = {"shape": tuple(told["shape"]), "classes": told["classes"], **told["sizes"]}
    for key, value in expected:
        if value is not None and found[key] != value:
            raise UserError(f"{source}: {key}: found {found[key]}, expected {value}; the files are not this dataset's")
