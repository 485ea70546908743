"""Shared ground of the corruptions: random streams, pixel units, windows and linear interpolation."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SIZE = 28
"""Height and width of an image, in pixels."""


def check_images(images: object) -> None:
    """Raise ValueError unless the images are a uint8 array (N, 28, 28)."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"images must be an array of uint8 (N, 28, 28), found {found}")


class Streams(dict):
    """Random generators by the name of what they draw, each seeded from (seed, corruption, name) alone.

    A corruption draws image by image from each stream, in a way that does not depend on what the images show.
    So the draws for an image depend on its position only, not on how many images are processed at a time.
    """

    def __init__(self, seed: int, corruption: str) -> None:
        self._seed, self._corruption = seed, corruption

    def __missing__(self, drawn: str) -> np.random.Generator:
        key = tuple(f"{self._corruption}/{drawn}".encode())
        self[drawn] = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        return self[drawn]


def unit(images: np.ndarray) -> np.ndarray:
    """uint8 pixels 0 to 255 -> float64 in [0, 1]."""
    return images / 255


def to_uint8(y: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1], clipped to it, -> uint8, truncated as the released files are.

    The detour through float32, in which the release was made, puts 84.999999999 to 85 before truncation.
    """
    return (255 * y.clip(0, 1)).astype(np.float32).astype(np.uint8)


def windows(images: np.ndarray) -> np.ndarray:
    """View (..., H, W) as all its 28x28 windows (..., H - 27, W - 27, 28, 28), by their top left corner."""
    return sliding_window_view(images, (SIZE, SIZE), axis=(-2, -1))


def interpolate(x: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Bilinear samples (n, 28, 28) of images x (n, 28, 28); pixels outside the image count as 0.

    `rows` and `cols`, (n, 28, 28) or (28, 28) for all images, are where to sample, in pixels.
    """
    padded, width = np.pad(x, ((0, 0), (1, 1), (1, 1))), SIZE + 2
    rows, cols = rows.clip(-1, SIZE), cols.clip(-1, SIZE)
    top, left = np.floor(rows).clip(max=SIZE - 1), np.floor(cols).clip(max=SIZE - 1)
    down, right = rows - top, cols - left
    first = np.arange(len(x))[:, None, None] * width**2
    corner = first + ((top + 1) * width + left + 1).astype(int)
    upper = padded.take(corner) * (1 - right) + padded.take(corner + 1) * right
    lower = padded.take(corner + width) * (1 - right) + padded.take(corner + width + 1) * right
    return upper * (1 - down) + lower * down
