"""Digital processing: grey level curves, compression, resolution, edges."""

from io import BytesIO

import numpy as np
from PIL import Image
from skimage.feature import canny

from dprobust.corruptions.common import SIZE, Streams, to_uint8, unit

_LEVELS = unit(np.arange(256))
_BRIGHTNESS = to_uint8(_LEVELS + 0.5)
# The release maps hue, saturation and value of the grey image alike and takes the luma of the colour it gets.
_SATURATE = to_uint8(0.97708 * (20 * _LEVELS + 0.2).clip(0, 1))


def brightness(images: np.ndarray, streams: Streams) -> np.ndarray:
    """x + 0.5."""
    return _BRIGHTNESS[images]


def saturate(images: np.ndarray, streams: Streams) -> np.ndarray:
    """0.97708 (20 x + 0.2), the bracket clipped to [0, 1]."""
    return _SATURATE[images]


def inverse(images: np.ndarray, streams: Streams) -> np.ndarray:
    """1 - x."""
    return ~images


def quantize(images: np.ndarray, streams: Streams) -> np.ndarray:
    """One bit a pixel."""
    return (images >= 128).view(np.uint8) * np.uint8(255)


def contrast(images: np.ndarray, streams: Streams) -> np.ndarray:
    """m + 0.1 (x - m); m: the mean of the image."""
    x = unit(images)
    mean = x.mean(axis=(1, 2), keepdims=True)
    return to_uint8(mean + 0.1 * (x - mean))


def jpeg_compression(images: np.ndarray, streams: Streams) -> np.ndarray:
    """JPEG of quality 7."""
    return np.stack([_jpeg(image) for image in images])


def _jpeg(image: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=7)
    return np.array(Image.open(file, formats=["JPEG"]))


def pixelate(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Reduced to 11x11 pixels and enlarged again, both by a box filter."""
    return np.stack([_pixelate(Image.fromarray(image)) for image in images])


def _pixelate(image: Image.Image) -> np.ndarray:
    return np.array(image.resize((11, 11), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.BOX))


def canny_edges(images: np.ndarray, streams: Streams) -> np.ndarray:
    """Canny's edges: sigma 1 pixel, thresholds 0.1 and 0.2."""
    return np.stack([canny(x) for x in unit(images)]).view(np.uint8) * np.uint8(255)
