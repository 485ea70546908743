"""The 31 corruptions of MNIST-C (Mu & Gilmer, arXiv 1906.02337), at the severities of its release.

The corruptions without randomness give the pixels of the release, the others its distribution. Two take data
that are not part of this package: `frost` its textures, `pessimal_noise` a matrix made for a classifier.
"""

from collections.abc import Callable
from numbers import Integral

import numpy as np

from dprobust.corruptions import blur, digital, drawing, geometry, noise, weather
from dprobust.corruptions.common import Streams, check_images
from dprobust.corruptions.weather import load_frost_textures

__all__ = ["NAMES", "OFFICIAL", "NEEDS", "corrupt", "load_frost_textures"]

_CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
    f.__name__: f
    for f in (
        digital.brightness,
        weather.fog,
        noise.impulse_noise,
        geometry.rotate,
        noise.shot_noise,
        geometry.translate,
        digital.canny_edges,
        blur.glass_blur,
        geometry.scale,
        weather.spatter,
        drawing.zigzag,
        drawing.dotted_line,
        blur.motion_blur,
        geometry.shear,
        drawing.stripe,
        digital.contrast,
        blur.defocus_blur,
        weather.frost,
        blur.gaussian_blur,
        noise.gaussian_noise,
        noise.pessimal_noise,
        digital.pixelate,
        digital.saturate,
        noise.speckle_noise,
        blur.zoom_blur,
        digital.jpeg_compression,
        geometry.elastic_transform,
        digital.quantize,
        drawing.line,
        digital.inverse,
        weather.snow,
    )
}

NAMES: tuple[str, ...] = tuple(_CORRUPTIONS)
"""The 31 corruptions, in the order of the paper's Table 2."""

OFFICIAL: tuple[str, ...] = NAMES[:15]
"""Those of the main archive of MNIST-C; the other 16 are its leftovers."""

NEEDS: dict[str, str] = {"frost": "textures", "pessimal_noise": "pattern"}
"""Corruption -> the name of the data that `corrupt` must be given for it."""

_CHUNK = 128  # images at a time: bounds the memory, changes no result


def corrupt(images: np.ndarray, name: str, seed: int, **data: object) -> np.ndarray:
    """Apply a corruption of MNIST-C, with random draws of its own for each image.

    The result for image i depends on that image, i, the name, the seed and the data only.

    Args:
        images: uint8 (N, 28, 28), white on black.
        name: one of `NAMES`.
        seed: an integer >= 0.
        data: for frost, `textures`: arrays uint8 (H, W) of grey levels, one drawn for each image
            (`load_frost_textures`); for pessimal_noise, `pattern`: the matrix (196, 196) of
            `dprobust.corruptions.pessimal`, or a pattern (14, 14).

    Returns:
        uint8 (N, 28, 28), a new array.

    Raises:
        ValueError: images of another type or shape, an unknown name, a bad seed, or bad data.
    """
    check_images(images)
    if name not in _CORRUPTIONS:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, found {name!r}")
    if not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, found {seed!r}")
    if data.keys() != ({NEEDS[name]} if name in NEEDS else set()):
        raise ValueError(f"{name} needs {NEEDS.get(name, 'no data')}, found {', '.join(data) or 'no data'}")
    images = np.ascontiguousarray(images)
    streams = Streams(int(seed), name)
    corrupted = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        corrupted[part] = _CORRUPTIONS[name](images[part], streams, **data)
    return corrupted
