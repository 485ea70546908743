"""Tiny archives in the official format of CIFAR-10 and CIFAR-100, with classes that a network can learn to tell."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


class _Python2Pickler(pickle._Pickler):
    """Writes bytes, and the ASCII that NumPy puts into an array's state, as Python 2 wrote its strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        content = value if isinstance(value, bytes) else value.encode("ascii")
        short = len(content) < 256
        self.write((b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, value, name=None):
        if getattr(value, "__name__", None) == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)


def python2_pickle(value) -> bytes:
    out = io.BytesIO()
    _Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def batch(classes: int, n: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Images uint8 (n, 3072), a coarse coloured pattern a class under noise, and labels, each class as often."""
    patterns = np.random.default_rng(classes).normal(128, 50, (classes, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    images = patterns[labels] + rng.normal(0, 20, (n, 3, 32, 32))
    return images.clip(0, 255).astype(np.uint8).reshape(n, 3072), labels.tolist()


def members(dataset: str, n: int) -> dict[str, bytes]:
    """Name -> content of an archive with `n` examples a batch: CIFAR-10 has five of training, CIFAR-100 one."""
    if dataset == "cifar10":
        folder, classes, key = "cifar-10-batches-py", 10, b"labels"
        names, meta = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], "batches.meta"
    else:
        folder, classes, key = "cifar-100-python", 100, b"fine_labels"
        names, meta = ["train", "test"], "meta"
    contents = {f"{folder}/{meta}": python2_pickle({b"label_names": [b"class %d" % i for i in range(classes)]})}
    for seed, name in enumerate(names):
        images, labels = batch(classes, n, seed)
        filenames = [b"%s_%d.png" % (name.encode(), i) for i in range(n)]
        value = {b"batch_label": name.encode(), key: labels, b"data": images, b"filenames": filenames}
        if dataset == "cifar100":
            value[b"coarse_labels"] = [label // 5 for label in labels]
        contents[f"{folder}/{name}"] = python2_pickle(value)
    return contents


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def pack(path: Path, contents: dict[str, bytes], *extras: tarfile.TarInfo, level: int = 6) -> str:
    """Write a .tar.gz of members, then `extras` (empty); return its SHA-256. The same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", level, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        archive.addfile(entry(next(iter(contents)).split("/")[0], tarfile.DIRTYPE))
        for name, content in contents.items():
            info = entry(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extras:
            archive.addfile(info)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(dataset: str, folder: Path, n: int = 20) -> str:
    """Write the archive of "cifar10" or "cifar100" into `folder`, with `n` examples a batch; return its SHA-256."""
    return pack(folder / ARCHIVES[dataset], members(dataset, n))
