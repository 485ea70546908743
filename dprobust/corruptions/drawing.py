"""Drawing: lines and stripes over the image."""

import numpy as np

from dprobust.corruptions.common import SIZE, Streams, to_uint8, unit

_ROWS, _COLS = np.indices((SIZE, SIZE))


def line_intensity(c0: np.ndarray, r0: np.ndarray, c1: np.ndarray, r1: np.ndarray) -> np.ndarray:
    """Lines (n, 28, 28) in [0, 1] from column c0, row r0 to column c1 > c0, row r1, each of shape (n,).

    The intensity falls with the vertical distance from the line and is 0 from 1.45 pixels on.
    """
    c0, r0, c1, r1 = (v[:, None, None] for v in (c0, r0, c1, r1))
    distance = np.abs(_ROWS - (r0 + (r1 - r0) / (c1 - c0) * (_COLS - c0)))
    intensity = 1 + np.log1p(-np.minimum(distance, 1.5) / 2.3)
    return intensity.clip(min=0) * ((np.floor(c0) <= _COLS) & (np.ceil(c1) > _COLS))


def line(images: np.ndarray, streams: Streams) -> np.ndarray:
    """A line across the image."""
    n = len(images)
    c0, c1 = streams["start"].integers(0, 5, n), streams["end"].integers(22, 27, n)
    r0, r1 = streams["rows"].integers(0, 27, (n, 2)).T
    return to_uint8(unit(images) + line_intensity(c0, r0, c1, r1))


def dotted_line(images: np.ndarray, streams: Streams) -> np.ndarray:
    """A line across the image, two columns on and two off."""
    n = len(images)
    r0, r1 = streams["rows"].integers(0, 27, (n, 2)).T
    dots = line_intensity(np.zeros(n), r0, np.full(n, 27), r1) * (_COLS // 2 % 2)
    return to_uint8(unit(images) + dots)


def zigzag(images: np.ndarray, streams: Streams) -> np.ndarray:
    """A zigzag across the image: 2 pixels either side of a line, with a period of 8."""
    n = len(images)
    r0 = streams["row"].integers(0, 27, (n, 1))
    angle = np.arctan(streams["rise"].integers(-5, 5, (n, 1)) / 23)
    length = 23 / np.cos(angle)
    # Along and across the line: the start, six turns and an end at the height where the release puts it.
    along = np.hstack([np.broadcast_to([0, 2, 6, 10, 14, 18, 22], (n, 7)), length])
    across = np.hstack([np.broadcast_to([0, 2, -2, 2, -2, 2, -2], (n, 7)), -1 / (length - 20)])
    cols = (2 + along * np.cos(angle) - across * np.sin(angle)).T
    rows = (r0 + along * np.sin(angle) + across * np.cos(angle)).T
    segments = zip(cols[:-1], rows[:-1], cols[1:], rows[1:], strict=True)
    return to_uint8(unit(images) + sum(line_intensity(*segment) for segment in segments))


def stripe(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Inverted but for the 14 columns in the middle."""
    return np.where((_COLS < 7) | (_COLS >= 21), ~images, images)
