"""What every set of images and labels from elsewhere has to be, checked with messages of one line."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from dprobust.errors import UserError

MODES = {"L": "grey", "RGB": "colour"}
"""The kinds of pictures, by Pillow's mode: 8 bits a channel."""


def gather(where: str, pairs: Iterable[tuple[Any, Any]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Make arrays of pictures and their labels.

    Args:
        where: what they are, for messages.
        pairs: pictures (Pillow) of one size and kind, and integers.
        n: how many there are.

    Returns:
        Images, uint8 (n, H, W) or (n, 3, H, W), and labels, int64 (n,).

    Raises:
        UserError: there are none; or of more than one size or kind; or a label is no integer.
    """
    images, labels, first = np.empty(0, np.uint8), np.empty(n, np.int64), None
    for i, pair in enumerate(pairs):
        try:
            picture, label = pair
            kind = (picture.mode, picture.size)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: example {i} is not a picture and a label") from error
        if picture.mode not in MODES:
            raise UserError(f"{where}: picture {i} has mode {picture.mode}, expected L (grey) or RGB, 8 bits a channel")
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise UserError(f"{where}: the label of picture {i} is {label!r}, expected an integer")
        pixels = np.asarray(picture)
        if first is None:
            first, images = kind, np.empty((n, *pixels.shape), np.uint8)
        if kind != first:
            raise UserError(
                f"{where}: picture {i} is {_describe(*kind)}, the first is {_describe(*first)}: all must be alike"
            )
        images[i], labels[i] = pixels, label
    if first is None:
        raise UserError(f"{where}: no pictures")
    return images if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels


def _describe(mode: str, size: tuple[int, int]) -> str:
    return f"{MODES[mode]}, {size[0]} x {size[1]} pixels"


def count_classes(where: str, train: np.ndarray, test: np.ndarray) -> int:
    """The number of classes K of a training set, whose labels are all of 0 to K - 1; a test set has no others.

    Raises:
        UserError: they are not so.
    """
    found = np.unique(train)
    if not len(found) or not len(test):
        raise UserError(f"{where}: no examples in {'the test set' if len(found) else 'the training set'}")
    classes = int(found[-1]) + 1
    if found[0] < 0 or len(found) < classes:
        gaps = f", but {len(found)} of them occur" if found[0] >= 0 else ""
        raise UserError(
            f"{where}: training labels go from {found[0]} to {found[-1]}{gaps}; expected each of 0 to K - 1"
        )
    if test.min() < 0 or test.max() >= classes:
        raise UserError(f"{where}: test labels go from {test.min()} to {test.max()}, expected 0 to {classes - 1}")
    return classes
