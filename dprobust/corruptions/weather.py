"""Weather: fog, frost, snow and spatter over the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dprobust.corruptions.blur import gaussian_matrix, motion_blurred, zoom_matrix
from dprobust.corruptions.common import SIZE, Streams, to_uint8, unit, windows


def plasma(uniform: np.ndarray) -> np.ndarray:
    """Plasma clouds (n, 256, 256) by the diamond-square algorithm on a torus.

    It takes numbers (n, 65535), uniform in [0, 1). The amplitude of the noise is 100^2 at the coarsest
    step and falls by 1.4^2 as the step is halved.
    """
    n = len(uniform)
    clouds = np.zeros((n, 1, 1), uniform.dtype)
    amplitude, used = 100.0**2, 0
    while (grid := clouds.shape[1]) < 256:
        noise = uniform[:, used : used + 3 * grid**2].reshape(n, 3, grid, grid)
        noise = (2 * amplitude) * noise - amplitude
        across, down = clouds + np.roll(clouds, -1, axis=2), clouds + np.roll(clouds, -1, axis=1)
        centres = (across + np.roll(across, -1, axis=1)) / 4 + noise[:, 0]
        finer = np.empty((n, 2 * grid, 2 * grid), uniform.dtype)
        finer[:, ::2, ::2] = clouds
        finer[:, 1::2, 1::2] = centres
        finer[:, ::2, 1::2] = (across + centres + np.roll(centres, 1, axis=1)) / 4 + noise[:, 1]
        finer[:, 1::2, ::2] = (down + centres + np.roll(centres, 1, axis=2)) / 4 + noise[:, 2]
        clouds, amplitude, used = finer, amplitude / 1.4**2, used + 3 * grid**2
    return clouds


def fog(images: np.ndarray, streams: Streams) -> np.ndarray:
    """(x + 3 P) M / (M + 3); M: the maximum of x, P: the corner of a plasma cloud that spans [0, 1]."""
    x = unit(images)
    for part in np.split(x, range(8, len(x), 8)):  # few clouds at a time: they are large
        clouds = plasma(streams["clouds"].random((len(part), 256**2 - 1), np.float32))
        low, high = (f(axis=(1, 2), keepdims=True) for f in (clouds.min, clouds.max))
        brightest = part.max(axis=(1, 2), keepdims=True)
        part += 3 * ((clouds[:, :SIZE, :SIZE] - low) / (high - low))
        part *= brightest / (brightest + 3)
    return to_uint8(x)


FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The textures of `frost`, in the order of the release."""


def load_frost_textures(folder: str | Path) -> list[np.ndarray]:
    """Read the frost textures of MNIST-C as grey images, byte for byte as OpenCV decodes them.

    Args:
        folder: holds `FROST_FILES`.

    Returns:
        uint8 (H, W) for each, as ``corrupt(images, "frost", seed, textures=...)`` takes them.

    Raises:
        OSError: a file is missing or no image.
    """
    return [_read_grey(Path(folder) / name) for name in FROST_FILES]


def _read_grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.format == "JPEG":
            image.draft("L", image.size)  # the luma of the file, as it is
            return np.array(image.convert("L"))
        gamma = image.info.get("gamma", 1.0)
        rgb = np.array(image.convert("RGB"))
    # libpng, in OpenCV, mixes colours in linear light, by 8-bit tables and 15-bit weights; grey stays.
    levels = unit(np.arange(256))
    linear = np.rint(255 * levels ** round(1 / gamma, 5)).astype(np.int32)
    encoded = np.rint(255 * levels**gamma).astype(np.uint8)
    luma = (linear[rgb] @ np.array([9797, 19234, 3737], np.int32) + 2**14) >> 15
    return np.where((rgb == rgb[..., :1]).all(axis=-1), rgb[..., 0], encoded[luma])


def frost(images: np.ndarray, streams: Streams, textures: Sequence[np.ndarray]) -> np.ndarray:
    """0.6 x + 0.75 F; F: a random 28x28 piece of one of the textures, each uint8 (H, W)."""
    if len(textures) == 0:
        raise ValueError("textures must hold at least one array, found none")
    for t in textures:
        if not isinstance(t, np.ndarray) or t.dtype != np.uint8 or t.ndim != 2 or min(t.shape) <= SIZE:
            found = f"{t.dtype} {t.shape}" if isinstance(t, np.ndarray) else type(t).__name__
            raise ValueError(f"textures must be uint8 arrays (H, W) larger than 28x28, found {found}")
    choice = streams["texture"].integers(0, len(textures), len(images))
    corner = streams["corner"].random((len(images), 2))
    pieces = np.empty_like(images)
    for k, texture in enumerate(textures):
        chosen = choice == k
        rows, cols = (corner[chosen] * (np.array(texture.shape) - SIZE)).astype(int).T
        pieces[chosen] = windows(texture)[rows, cols]
    return to_uint8(0.6 * unit(images) + 0.75 * unit(pieces))


_FLAKES = zoom_matrix(2.5)


def snow(images: np.ndarray, streams: Streams) -> np.ndarray:
    """A whitened image, and flakes that fall in a random direction and, turned by 180 degrees, against it."""
    flakes = _FLAKES @ (0.55 + 0.3 * streams["flakes"].standard_normal(images.shape)) @ _FLAKES.T
    flakes = to_uint8(np.where(flakes < 0.85, 0, flakes))
    degrees = streams["angle"].uniform(-135, -45, len(images))
    flakes = unit(motion_blurred(flakes, degrees, radius=12, sigma=12))
    x = unit(images)
    white = 0.55 * x + 0.45 * (1.5 * x + 0.5)
    return to_uint8(white + flakes + flakes[:, ::-1, ::-1])


_LIQUID, _SPLASHES = gaussian_matrix(1), gaussian_matrix(1.5)


def spatter(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Blobs of mud, of grey level 63."""
    liquid = _LIQUID @ (0.65 + 0.3 * streams["liquid"].standard_normal(images.shape)) @ _LIQUID.T
    mud = _SPLASHES @ (liquid > 0.65).astype(float) @ _SPLASHES.T
    mud[mud < 0.8] = 0
    return to_uint8(unit(images) * (1 - mud) + 63 / 255 * mud)
