"""Accuracy on each corrupted test set, and on the clean one."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dprobust.errors import UserError
from dprobust.inference import check_images, classes, map_batches
from dprobust.measuring import Images, Measured
from dprobust.metrics.corruptions.settings import Metric

CLEAN = "identity"


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Accuracy on the same images, clean (corruption "identity") and in each set of the file that is needed.

    Rows: accuracy for each corruption, with the `source` of the set.

    Arrays, M corruptions with identity, N images:
        corruption: str [M]: names of the axis.
        predicted: uint8 [M, N]; int16 where there are more than 256 classes.

    Raises:
        UserError: the file cannot be read, or holds what is no corrupted test set of these images.
    """
    path = Path(images.needs["sets"])
    origins = _origins(path.with_suffix(".json"))
    check_images(model, images.x, images.y)
    measured, names, predicted = Measured(), [], []

    def add(name: str, x: Tensor, source: str) -> None:
        (found,) = map_batches(model, lambda batch: (classes(model(batch)),), 256, x)
        measured.add("accuracy", found == images.y, corruption=name, source=source)
        names.append(name)
        predicted.append(found)

    add(CLEAN, images.x, images.about["dataset"])
    for name, array in _sets(path):
        add(name, _like(images, array, f"{path}: {name}"), origins.get(name, path.name))
    measured.keep("corruption", names)
    measured.keep("predicted", torch.stack(predicted))
    return measured


def _sets(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of an .npz, one in memory at a time."""
    try:
        with np.load(path, allow_pickle=False) as sets:
            if CLEAN in sets.files or not sets.files:
                found = f"a set named {CLEAN}, which is the clean one's name" if sets.files else "no set"
                raise UserError(f"{path}: found {found}; give each corruption's array a name of its own")
            for name in sets.files:
                array = sets[name]
                yield name, array
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, TypeError) as error:
        raise UserError(f"{path}: not a whole .npz of arrays ({error}); see `sets` of corruptions") from error


def _origins(path: Path) -> dict[str, str]:
    """Corruption -> where its set comes from, as far as a file beside the sets tells."""
    try:
        origins = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); mend it or take it away") from error
    if not isinstance(origins, dict) or not all(isinstance(origin, str) for origin in origins.values()):
        raise UserError(f"{path}: expected an object of texts, the origin of each set; mend it or take it away")
    return origins


def _like(images: Images, array: np.ndarray, where: str) -> Tensor:
    """The images that are measured out of a corrupted test set, float32 (N, C, H, W) in [0, 1]."""
    channels, height, width = shape = tuple(images.x.shape[1:])
    layouts = [shape, (height, width, channels)] + ([(height, width)] if channels == 1 else [])
    if array.dtype != np.uint8 or array.shape[1:] not in layouts:
        raise UserError(f"{where} is {array.dtype} {array.shape}, expected uint8 (N, {', '.join(map(str, shape))})")
    if len(array) <= (last := images.index.max().item()):
        raise UserError(
            f"{where} has {len(array)} images, the test set has {last + 1} or more: all are needed, in order"
        )
    chosen = torch.from_numpy(array[images.index.numpy()])
    if array.shape[1:] == layouts[1] != shape:
        chosen = chosen.permute(0, 3, 1, 2)
    return chosen.reshape(images.x.shape).float().div_(255)
