"""Blur: 28x28 matrices for filters that are separable, sums of shifted images for those that are not."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from dprobust.corruptions.common import SIZE, Streams, to_uint8, unit, windows


def gaussian_matrix(sigma: float, mode: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """G (28, 28) such that G @ x is a Gaussian filter along the rows axis; options as in `scipy.ndimage`."""
    return gaussian_filter1d(np.eye(SIZE), sigma, axis=0, mode=mode, truncate=truncate)


def zoom_matrix(factor: float) -> np.ndarray:
    """R (28, 28) such that R @ x @ R.T is the centre of x, enlarged `factor` times by linear interpolation.

    The centre is a whole number of pixels, enlarged to a whole number: the true factor differs a little.
    """
    source = int(np.ceil(SIZE / factor))
    enlarged = round(source * factor)
    start, cut = (SIZE - source) // 2, (enlarged - SIZE) // 2
    positions = start + (cut + np.arange(SIZE)) * (source - 1) / (enlarged - 1)
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(SIZE)))


_GAUSSIAN = gaussian_matrix(2)


def gaussian_blur(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Gaussian of standard deviation 2 pixels; vertical only, as in the release."""
    return to_uint8(_GAUSSIAN @ unit(images))


_GLASS = gaussian_matrix(0.7)


def glass_blur(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Vertical Gaussian of 0.7 pixels, two sweeps of swaps with upper and left neighbours, Gaussian again."""
    # Pixels first, images last: a pixel is swapped in all images at once, since a swap sees those before it.
    pixels = np.ascontiguousarray(to_uint8(_GLASS @ unit(images)).transpose(1, 2, 0))
    inner = SIZE - 2
    dice = streams["swaps"].integers(0, 8, (len(images), 2, inner, inner), np.uint8).transpose(1, 2, 3, 0)
    # With probability 1/2 a swap by dy, dx, fair coins in {-1, 0}, so each of these three has 1/8.
    moves = [(-1, -1), (-1, 0), (0, -1)]
    masks = [(dice == side).view(np.uint8) * np.uint8(255) for side in range(len(moves))]
    for sweep in range(2):
        for r in range(SIZE - 1, 1, -1):
            for c in range(SIZE - 1, 1, -1):
                here = pixels[r, c]
                for (dy, dx), mask in zip(moves, masks, strict=True):
                    there = pixels[r + dy, c + dx]
                    change = (here ^ there) & mask[sweep, r - 2, c - 2]
                    here ^= change
                    there ^= change
    return to_uint8(_GLASS @ unit(np.ascontiguousarray(pixels.transpose(2, 0, 1))))


_DISK = np.argwhere(np.add.outer(np.arange(-3, 4) ** 2, np.arange(-3, 4) ** 2) <= 9)


def defocus_blur(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Mean over the disk of radius 3 pixels; borders are mirrored without repeating the edge."""
    shifted = windows(np.pad(images, ((0, 0), (3, 3), (3, 3)), mode="reflect").astype(np.uint16))
    return (sum(shifted[:, r, c] for r, c in _DISK) // len(_DISK)).astype(np.uint8)


def _rounded(levels: np.ndarray) -> np.ndarray:
    # To the nearest, as did ImageMagick when the release was made; since 6.9.11-55 it truncates.
    return np.rint(levels).astype(np.uint8)


def motion_blurred(images: np.ndarray, degrees: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """ImageMagick's motion blur of uint8 images (n, 28, 28), each in a direction (n,) of its own.

    The taps are a one-sided Gaussian over 2 radius + 1 pixels, from the pixel to the right (0 degrees) or
    down (90 degrees), so that the image is smeared the opposite way. Borders are replicated.
    """
    last = 2 * radius
    taps = np.arange(last + 1)
    kernel = np.exp(-(taps**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    angle = np.radians(degrees)[:, None]
    rows = last + np.ceil(taps * np.sin(angle) - 0.5).astype(int)
    cols = last + np.ceil(taps * np.cos(angle) - 0.5).astype(int)
    shifted = windows(np.pad(images, ((0, 0), (last, last), (last, last)), mode="edge"))
    each = np.arange(len(images))
    return _rounded(sum(kernel[i] * shifted[each, rows[:, i], cols[:, i]] for i in taps))


def motion_blur(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Motion blur of 3 pixels to the left, within 45 degrees of the horizontal."""
    return motion_blurred(images, streams["angle"].uniform(-45, 45, len(images)), radius=10, sigma=3)


_ZOOMS = [zoom_matrix(1 + 0.03 * j) for j in range(11)]


def zoom_blur(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Mean of the image and its enlargements by 1, 1.03, ..., 1.3."""
    x = unit(images)
    return to_uint8((x + sum(zoom @ x @ zoom.T for zoom in _ZOOMS)) / (1 + len(_ZOOMS)))
