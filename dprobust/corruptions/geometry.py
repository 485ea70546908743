"""Geometry: shifts, affine and elastic warps."""

import numpy as np

from dprobust.corruptions.blur import gaussian_matrix
from dprobust.corruptions.common import SIZE, Streams, interpolate, to_uint8, unit, windows

_ROWS, _COLS = np.indices((SIZE, SIZE), float)
_CENTRE = (SIZE - 1) / 2


def _warp(images: np.ndarray, matrix: tuple[tuple, tuple]) -> np.ndarray:
    """Sample at matrix @ (column, row), about the centre; the 2x2 entries are numbers or arrays (n, 1, 1)."""
    x, y = _COLS - _CENTRE, _ROWS - _CENTRE
    cols, rows = (a * x + b * y + _CENTRE for a, b in matrix)
    return to_uint8(interpolate(unit(images), rows, cols))


def _angles(n: int, streams: Streams) -> np.ndarray:
    return np.where(streams["sign"].integers(0, 2, (n, 1, 1)), 0.4, -0.4)


def rotate(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Rotation by 0.4 rad, either way."""
    t = _angles(len(images), streams)
    return _warp(images, ((np.cos(t), -np.sin(t)), (np.sin(t), np.cos(t))))


def shear(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Shear by 0.4 rad, either way, with the matrix of scikit-image before 0.16, as in the release."""
    t = _angles(len(images), streams)
    return _warp(images, ((1, -np.sin(t)), (0, np.cos(t))))


def scale(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Reduced to 0.7 of its size."""
    return _warp(images, ((1 / 0.7, 0), (0, 1 / 0.7)))


def translate(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Shifted by 3 pixels both ways, in one of the four diagonal directions."""
    rows, cols = 6 * streams["corner"].integers(0, 2, (len(images), 2)).T
    return windows(np.pad(images, ((0, 0), (3, 3), (3, 3))))[np.arange(len(images)), rows, cols]


_ANCHORS = np.array([[23, 23], [23, 5], [5, 5]])
_SMOOTH = gaussian_matrix(19.6, mode="reflect", truncate=3)


def elastic_transform(images: np.ndarray, streams: Streams) -> np.ndarray:
    """An affine map that moves three anchors by up to 2.8 pixels, then a shift of about one."""
    n = len(images)
    moved = np.ones((n, 3, 3))
    moved[:, :, :2] = _ANCHORS + streams["anchors"].uniform(-2.8, 2.8, (n, 3, 2))
    a, b, t = (np.linalg.inv(moved) @ _ANCHORS).transpose(1, 2, 0)[..., None, None]
    # OpenCV, which made the release, computes in 1/1024 and samples at multiples of 1/32 pixel.
    cols, rows = (
        (np.rint(1024 * a[i] * _COLS) + np.rint(1024 * (b[i] * _ROWS + t[i])) + 16) // 32 / 32 for i in (0, 1)
    )
    x = interpolate(unit(images), rows, cols)
    dx, dy = 56 * (_SMOOTH @ streams["shifts"].uniform(-1, 1, (n, 2, SIZE, SIZE)) @ _SMOOTH.T).swapaxes(0, 1)
    rows, cols = _ROWS + dy, _COLS + dx
    inside = (rows.clip(0, SIZE - 1) == rows) & (cols.clip(0, SIZE - 1) == cols)
    return to_uint8(interpolate(x, rows, cols) * inside)
