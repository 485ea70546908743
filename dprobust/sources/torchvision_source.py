"""The image classification datasets of torchvision (https://docs.pytorch.org/vision/stable/datasets.html).

torchvision downloads them and checks what it downloads, but takes files that lie there already as they are. Here the
files of MNIST and its like are checked each time; what torchvision extracts from them is extracted anew.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dprobust.errors import UserError
from dprobust.files import replaced
from dprobust.settings import Facts
from dprobust.sources import fashion_mnist, mnist
from dprobust.sources.base import Found, refuse_overrides
from dprobust.sources.file import ChecksumError

PREFIX = "torchvision:"

TIMEOUT = 30.0
"""Seconds to wait for a server."""

FACTS = {
    "MNIST": Facts(shape=(1, 28, 28), classes=10, train=60_000, test=10_000),
    "FashionMNIST": Facts(shape=(1, 28, 28), classes=10, train=60_000, test=10_000),
    "KMNIST": Facts(shape=(1, 28, 28), classes=10, train=60_000, test=10_000),
    "QMNIST": Facts(shape=(1, 28, 28), classes=10, train=60_000, test=60_000),
    "CIFAR10": Facts(shape=(3, 32, 32), classes=10, train=50_000, test=10_000),
    "CIFAR100": Facts(shape=(3, 32, 32), classes=100, train=50_000, test=10_000),
    "SVHN": Facts(shape=(3, 32, 32), classes=10, train=73_257, test=26_032),
    "STL10": Facts(shape=(3, 96, 96), classes=10, train=5_000, test=8_000),
    "USPS": Facts(shape=(1, 16, 16), classes=10, train=7_291, test=2_007),
}
"""Of well-known datasets, so that a plan can be checked before they are there; data that differs is refused."""

CONTENTS = {"MNIST": mnist.SOURCE, "FashionMNIST": fashion_mnist.SOURCE}
"""Datasets whose contents, decompressed, are known: files that somebody compressed again are as good."""


@dataclass(frozen=True)
class Torchvision:
    """A class of torchvision.datasets with a training and a test set: `train=` or `split=` is an argument of it.

    Images of all examples have one size and are grey or RGB; labels are integers.
    """

    name: str

    @property
    def spec(self) -> str:
        return PREFIX + self.name

    def facts(self) -> Facts:
        """Those of a well-known dataset; of others, nothing."""
        self._check_name()
        return FACTS.get(self.name, Facts())

    def identity(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """The class and the version of torchvision, which holds the checksums; None if it is not installed."""
        self._check_name()
        refuse_overrides(self.spec, (), sha256)
        try:
            installed = version("torchvision").partition("+")[0]
        except PackageNotFoundError:
            installed = None
        return {"source": self.spec, "torchvision": installed}

    def slug(self) -> str:
        """torchvision-CLASS."""
        self._check_name()
        return f"torchvision-{self.name}"

    def _check_name(self) -> None:
        if not re.fullmatch("[A-Za-z0-9_]+", self.name):
            raise UserError(f"source: found {self.spec!r}, expected the name of a class, such as {PREFIX}KMNIST")

    def find(self, folder: Path, mirrors: Iterable[str], sha256: Mapping[str, str]) -> Found:
        """Let torchvision download what is missing in `folder`, check the files, and read all images.

        Raises:
            UserError: no such class, or not one of training and test images with labels; a file cannot be had or is
                not the right one; images that are not alike.
        """
        refuse_overrides(self.spec, mirrors, sha256)
        from dprobust.sources.examine import count_classes, gather

        cls = self._class()
        folder.mkdir(parents=True, exist_ok=True)
        files = _Files(cls, folder)
        told = files.check()
        splits, names = {}, None
        for split in ("train", "test"):
            data = self._make(cls, split, folder, files)
            names = getattr(data, "classes", None)
            splits[split] = gather(f"{self.spec}, {split}", (data[i] for i in range(len(data))), len(data))
        told = files.check(told)
        if not told:
            told = {self.name: {"origin": "torchvision", "verified": "by torchvision"}}
        classes = count_classes(self.spec, splits["train"][1], splits["test"][1])
        known = isinstance(names, list | tuple) and len(names) == classes and all(isinstance(n, str) for n in names)
        return Found(splits, classes, tuple(names) if known else None, told)

    def _class(self) -> Any:
        self._check_name()
        try:
            from torchvision import datasets
        except ImportError as error:
            raise UserError(f"{self.spec}: torchvision cannot be imported ({error})") from error
        cls = getattr(datasets, self.name, None)
        if not inspect.isclass(cls) or not issubclass(cls, datasets.VisionDataset):
            import difflib

            near = difflib.get_close_matches(self.name, datasets.__all__, 1)
            raise UserError(
                f"{self.spec}: torchvision {version('torchvision')} has no such dataset"
                + (f"; did you mean {PREFIX}{near[0]}?" if near else "")
            )
        return cls

    def _make(self, cls: Any, split: str, folder: Path, files: _Files) -> Any:
        takes = inspect.signature(cls).parameters
        if "train" in takes:
            arguments: dict[str, Any] = {"train": split == "train"}
        elif "split" in takes:
            arguments = {"split": split}
        else:
            raise UserError(f"{self.spec}: has no training and test set of its own; use an .npz or a folder of images")
        if "download" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            arguments["download"] = True
        try:
            with _time_out(TIMEOUT):
                data = cls(root=str(folder), **arguments)
                own = getattr(data, "_check_integrity", None)
                if callable(own) and not inspect.signature(own).parameters and not own():
                    raise RuntimeError("the files are not those that torchvision knows")
                return data
        # Whatever a class, the network or a damaged file can raise.
        except Exception as error:
            reason = "; ".join([*files.faults, _brief(error)])
            advice = "" if isinstance(error, ValueError) else f". Without network: {files.advice}"
            raise UserError(f"{self.spec}: {reason}{advice}") from error


class _Files:
    """The files of a class, where it tells their names and MD5.

    Attributes:
        faults: what is wrong with those that are there and can be had anew.
        advice: what to place where.
    """

    def __init__(self, cls: Any, folder: Path) -> None:
        from torchvision.datasets import MNIST

        known = CONTENTS[cls.__name__].files if cls.__name__ in CONTENTS else ()
        self.contents = {f"{file.name}.gz": file for file in known}
        self.faults: list[str] = []
        self.extracted, self.folder, self.md5 = False, folder, {}
        resources, lists = getattr(cls, "resources", None), getattr(cls, "split_list", None)
        # A class that takes resources from MNIST but has none of them, as EMNIST, has a download of its own.
        if issubclass(cls, MNIST) and ("download" not in vars(cls) or "resources" in vars(cls)):
            pairs = resources if isinstance(resources, list) else [*resources["train"], *resources["test"]]
            self.md5 = {url.rpartition("/")[2]: md5 for url, md5 in pairs}
            self.extracted, self.folder = True, folder / cls.__name__ / "raw"
            if (old := folder / cls.__name__ / "processed").exists():
                raise UserError(f"{old}: files of an old torchvision, which nothing can check; delete the folder")
        elif isinstance(lists, dict):
            self.md5 = {name: md5 for _, name, md5 in (lists[split] for split in ("train", "test"))}
        what = ", ".join(self.md5) or getattr(cls, "filename", None) or "the files, as torchvision downloads them,"
        self.advice = f"put {what} into {self.folder} by hand"

    def check(self, before: Mapping[str, dict[str, str]] | None = None) -> dict[str, dict[str, str]]:
        """Check the files that are there, and extract them.

        Args:
            before: what a check before the download told; None: this is that one. After it all must be there.

        Returns:
            file name -> ``"origin"``, how it was ``"verified"``, its hash.

        Raises:
            UserError: a file is not the right one, and torchvision would use what was extracted from it.
        """
        told = dict(before or {})
        for name, md5 in self.md5.items():
            path, plain = self.folder / name, self.folder / name.rpartition(".")[0]
            if name in told:
                continue
            try:
                told[name] = self._verify(path, plain, md5) | {
                    "origin": "data folder" if before is None else "torchvision"
                }
            except ChecksumError as error:
                if before is not None or (self.extracted and plain.exists()):
                    made = f"{name} and {plain.name}" if self.extracted else name
                    raise UserError(f"{error}; put the right {name} there, or delete {made}") from error
                if path.exists():
                    self.faults.append(str(error))
        return told

    def _verify(self, path: Path, plain: Path, md5: str) -> dict[str, str]:
        content = self.contents.get(path.name)
        if not path.exists():
            if content and plain.exists():
                return content.verify(plain)
            raise ChecksumError(f"{plain if plain.exists() else path}: cannot be checked without {path.name}")
        found = _md5(path)
        if found == md5:
            told = {"verified": "official checksum", "md5": md5}
        elif content:
            try:
                told = content.verify(path)
            except ChecksumError as error:
                raise ChecksumError(f"{path}: found md5 {found}, expected {md5}, and {error}") from error
        else:
            raise ChecksumError(f"{path}: found md5 {found}, expected {md5}")
        if self.extracted:
            with replaced(plain) as temporary, gzip.open(path) as packed, temporary.open("wb") as out:
                shutil.copyfileobj(packed, out)
        return told


def _brief(error: Exception) -> str:
    said = " ".join(str(error).split())[:300].rstrip(".")
    return said if said and isinstance(error, RuntimeError | OSError | ValueError) else f"{type(error).__name__} {said}"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@contextmanager
def _time_out(seconds: float) -> Iterator[None]:
    """torchvision waits for a server for ever, unless it is told otherwise."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
