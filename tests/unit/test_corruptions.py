import json
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage, stats
from skimage.feature import canny

from dprobust import corruptions
from dprobust.corruptions import (
    NAMES,
    OFFICIAL,
    blur,
    common,
    corrupt,
    drawing,
    geometry,
    load_frost_textures,
    weather,
)

FROST = ROOT / "data" / "mnist_c" / "frost"

DETERMINISTIC = [
    *(
        "brightness",
        "canny_edges",
        "contrast",
        "defocus_blur",
        "gaussian_blur",
        "inverse",
        "jpeg_compression",
    ),
    *("pixelate", "quantize", "saturate", "scale", "stripe", "zoom_blur"),
]
RANDOM = [name for name in NAMES if name not in DETERMINISTIC]


def random_texture(k):
    return np.random.default_rng(k).integers(0, 256, (40 + k, 30 + 9 * k), np.uint8)


# What corruptions need: five textures of different sizes, and any matrix.
DATA = {
    "frost": {"textures": [random_texture(k) for k in range(5)]},
    "pessimal_noise": {"pattern": np.random.default_rng(5).standard_normal((196, 196))},
}


def apply(images, name, seed=0):
    return corrupt(images, name, seed, **DATA.get(name, {}))


@pytest.fixture(scope="module")
def images():
    """Blobs on black like digits, a black, a grey and a white image."""
    noise = np.random.default_rng(0).standard_normal((30, 28, 28))
    blobs = ndimage.gaussian_filter(noise, (0, 2.5, 2.5)) * np.hanning(30)[1:-1] * np.hanning(30)[1:-1, None]
    blobs = (4000 * blobs.clip(0.01) - 40).clip(0, 255).astype(np.uint8)
    return np.concatenate([blobs, np.stack([np.full((28, 28), v, np.uint8) for v in (0, 100, 255)])])


def grey(level, n=1):
    return np.full((n, 28, 28), level, np.uint8)


def dot(row=14, col=14, background=0, level=255):
    image = grey(background)
    image[0, row, col] = level
    return image


class Fixed:
    """In the place of a generator: every draw is this value."""

    def __init__(self, value):
        self.value = value

    def draw(self, *bounds_and_shape):
        return np.broadcast_to(self.value, bounds_and_shape[-1])

    uniform = integers = random = standard_normal = draw


# The public call


def test_names():
    assert len(NAMES) == len(set(NAMES)) == 31 and NAMES[:15] == OFFICIAL
    assert set(OFFICIAL) == {
        *(
            "brightness",
            "canny_edges",
            "dotted_line",
            "fog",
            "glass_blur",
            "impulse_noise",
            "motion_blur",
            "rotate",
        ),
        *("scale", "shear", "shot_noise", "spatter", "stripe", "translate", "zigzag"),
    }


def test_import_needs_no_torch():
    code = "import sys, dprobust.corruptions; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", NAMES)
def test_depends_on_images_name_and_seed_alone(name, images, monkeypatch):
    before = images.copy()
    expected = apply(images, name)
    assert expected.dtype == np.uint8 and expected.shape == images.shape
    assert (images == before).all() and not np.shares_memory(expected, images)
    assert (apply(np.asfortranarray(images), name) == expected).all()
    # Neither how many are processed at a time nor the other images matter.
    for chunk in (1, 7):
        monkeypatch.setattr(corruptions, "_CHUNK", chunk)
        assert (apply(images, name) == expected).all()
    others = images.copy()
    others[:20] = 255 - others[:20]
    assert (apply(others[:25], name)[20:] == expected[20:25]).all()
    assert (apply(images, name, seed=1) == expected).all() == (name in DETERMINISTIC)
    assert apply(images[:0], name).shape == (0, 28, 28)


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_has_draws_of_its_own(name, images):
    outputs = apply(np.repeat(images[:1], 40, axis=0), name)
    possible = {"rotate": 2, "shear": 2, "translate": 4}.get(name, 25)
    assert len(np.unique(outputs, axis=0)) >= possible


def test_corruptions_draw_from_different_streams():
    blank = grey(128)
    noise = [apply(blank, name)[0].astype(int) > 128 for name in ("gaussian_noise", "speckle_noise")]
    assert 0.4 < (noise[0] == noise[1]).mean() < 0.6


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        (([[0]], "fog", 0), {}, r"images must be an array of uint8 \(N, 28, 28\), found list"),
        ((np.zeros((2, 28, 28)), "fog", 0), {}, r"found float64 \(2, 28, 28\)"),
        ((np.zeros((28, 28), np.uint8), "fog", 0), {}, r"found uint8 \(28, 28\)"),
        ((np.zeros((2, 1, 28, 28), np.uint8), "fog", 0), {}, r"found uint8 \(2, 1, 28, 28\)"),
        ((grey(0), "smog", 0), {}, "name must be one of brightness, fog, .*, snow, found 'smog'"),
        ((grey(0), "identity", 0), {}, "found 'identity'"),
        ((grey(0), "fog", -1), {}, "seed must be an integer >= 0, found -1"),
        ((grey(0), "fog", 0.5), {}, "seed must be an integer >= 0, found 0.5"),
        ((grey(0), "fog", 0), {"textures": []}, "fog needs no data, found textures"),
        ((grey(0), "frost", 0), {}, "frost needs textures, found no data"),
        ((grey(0), "pessimal_noise", 0), {"textures": []}, "pessimal_noise needs pattern, found textures"),
        ((grey(0), "frost", 0), {"textures": []}, "textures must hold at least one array, found none"),
        (
            (grey(0), "frost", 0),
            {"textures": ["a.png"]},
            "textures must be uint8 .* larger than 28x28, found str",
        ),
        ((grey(0), "frost", 0), {"textures": [np.zeros((28, 99), np.uint8)]}, r"found uint8 \(28, 99\)"),
        ((grey(0), "frost", 0), {"textures": [np.zeros((99, 99))]}, r"found float64 \(99, 99\)"),
        (
            (grey(0), "pessimal_noise", 0),
            {"pattern": np.eye(28)},
            r"pattern must be .*, found shape \(28, 28\)",
        ),
        ((grey(0), "pessimal_noise", 0), {"pattern": np.zeros((14, 14))}, "not all zero"),
        ((grey(0), "pessimal_noise", 0), {"pattern": np.full((14, 14), np.nan)}, "pattern must be finite"),
    ],
)
def test_bad_input(arguments, data, message):
    with pytest.raises(ValueError, match=message) as error:
        corrupt(*arguments, **data)
    assert "\n" not in str(error.value)


# Shared ground


def test_to_uint8_truncates_after_float32():
    assert common.to_uint8(np.array([-1, 0.5, 1.5, 84.9999999999 / 255, 84.9 / 255])).tolist() == [
        0,
        127,
        255,
        85,
        84,
    ]


def test_interpolate(images):
    x = common.unit(images)
    rows, cols = np.random.default_rng(1).uniform(-3, 31, (2, len(x), 28, 28))
    rows[:, :4], cols[:, 2:6] = rows[:, :4].round(), cols[:, 2:6].round()
    for got, image, r, c in zip(common.interpolate(x, rows, cols), x, rows, cols, strict=True):
        expected = ndimage.map_coordinates(image, [r, c], order=1, mode="grid-constant")
        np.testing.assert_allclose(got, expected, atol=1e-14)


# Noise


def test_gaussian_noise():
    y = corrupt(grey(102, 100), "gaussian_noise", 0)
    normal = stats.norm(0.4, 0.38)
    assert abs((y == 0).mean() - normal.cdf(1 / 255)) < 0.007
    assert abs((y == 255).mean() - normal.sf(1)) < 0.004
    assert abs((y < 150).mean() - normal.cdf(150 / 255)) < 0.009


def test_speckle_noise():
    assert (corrupt(grey(0), "speckle_noise", 0) == 0).all()
    y = corrupt(grey(102, 100), "speckle_noise", 0)
    normal = stats.norm(0.4, 0.24)
    assert abs((y == 0).mean() - normal.cdf(1 / 255)) < 0.004
    assert abs((y < 150).mean() - normal.cdf(150 / 255)) < 0.008


@pytest.mark.parametrize("level", [0, 3, 100, 255])
def test_shot_noise(level):
    y = corrupt(grey(level, 100), "shot_noise", 0)
    photons = stats.poisson(3 * level / 255)
    expected = [*photons.pmf([0, 1, 2]), photons.sf(2)]
    np.testing.assert_allclose([(y == v).mean() for v in (0, 85, 170, 255)], expected, atol=0.008)


def test_impulse_noise():
    y = corrupt(grey(100, 100), "impulse_noise", 0)
    np.testing.assert_allclose([(y == v).mean() for v in (0, 100, 255)], [0.085, 0.83, 0.085], atol=0.006)


def test_pessimal_noise_of_rank_one_is_the_pattern_with_either_sign():
    pattern = np.random.default_rng(0).uniform(-1, 1, (14, 14))
    y = corrupt(grey(128, 30), "pessimal_noise", 0, pattern=7 * pattern)
    noise = np.tile(pattern * 10.63 / 4 / np.linalg.norm(pattern), (2, 2))
    either = [common.to_uint8(128 / 255 + sign * noise) for sign in (-1, 1)]
    found = [(y == e).all(axis=(1, 2)) for e in either]
    assert (found[0] ^ found[1]).all() and found[0].any() and found[1].any()
    # The same pattern as a matrix: every row a multiple of it.
    matrix = np.outer(np.random.default_rng(1).standard_normal(196), pattern)
    y = corrupt(grey(128, 30), "pessimal_noise", 0, pattern=matrix.astype(np.float32))
    errors = np.array([np.abs(y.astype(int) - e).max(axis=(1, 2)) for e in either]).min(axis=0)
    assert errors.max() <= 1


def test_pessimal_noise_has_the_covariance_and_norm_of_its_matrix():
    matrix = np.zeros((196, 196))
    matrix[0, :98], matrix[1, 98:] = 1, 2
    noise = corrupt(grey(128, 400), "pessimal_noise", 0, pattern=matrix) / 255 - 128 / 255
    tile = noise[:, :14, :14]
    assert all((noise[:, r : r + 14, c : c + 14] == tile).all() for r in (0, 14) for c in (0, 14))
    np.testing.assert_allclose(np.linalg.norm(tile, axis=(1, 2)), 10.63 / 4, atol=0.06)  # one level is 0.055
    upper, lower = tile[:, 0, 0], tile[:, 13, 13]
    # The median of |N(0, 4) / N(0, 1)| is 2.
    assert abs((np.abs(lower) > 2 * np.abs(upper)).mean() - 0.5) < 0.1


# Blur


def test_gaussian_blur_is_vertical():
    weights = np.exp(-(np.arange(-8, 9) ** 2) / 8)
    column = np.zeros(28)
    column[6:23] = weights / weights.sum()
    expected = np.zeros((28, 28), np.uint8)
    expected[:, 10] = (255 * column).astype(int)
    assert (corrupt(dot(14, 10), "gaussian_blur", 0)[0] == expected).all()


def test_glass_blur_swaps_in_order(images):
    dice = np.random.default_rng(0).integers(0, 8, (len(images), 2, 26, 26), np.uint8)

    class Dice:
        def integers(self, *_):
            return dice

    def blurred(image):
        return common.to_uint8(ndimage.gaussian_filter1d(image / 255, 0.7, axis=0, mode="nearest"))

    for image, die, got in zip(images, dice, blur.glass_blur(images, {"swaps": Dice()}), strict=True):
        q = blurred(image).tolist()
        for sweep in range(2):
            for r in range(27, 1, -1):
                for c in range(27, 1, -1):
                    dy, dx = {0: (-1, -1), 1: (-1, 0), 2: (0, -1)}.get(int(die[sweep, r - 2, c - 2]), (0, 0))
                    q[r][c], q[r + dy][c + dx] = q[r + dy][c + dx], q[r][c]
        assert (got == blurred(np.array(q, np.uint8))).all()


def test_defocus_blur():
    rows, cols = np.indices((28, 28))
    disk = (rows - 14) ** 2 + (cols - 10) ** 2 <= 9
    assert disk.sum() == 29
    assert (
        corrupt(dot(14, 10, background=29), "defocus_blur", 0)[0] == np.where(disk, (255 + 28 * 29) // 29, 29)
    ).all()
    # At the border the image is mirrored about the centre of its edge pixels: row 1 counts twice, row 0 once.
    assert corrupt(dot(1, 14), "defocus_blur", 0)[0, 0, 14] == 2 * 255 // 29
    assert corrupt(dot(0, 14), "defocus_blur", 0)[0, 0, 14] == 255 // 29


@pytest.mark.parametrize(("degrees", "step"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (-45, (-1, 1))])
def test_motion_blur_smears_against_its_direction(degrees, step):
    y = blur.motion_blurred(dot(), np.array([degrees]), radius=3, sigma=1.5)[0]
    weights = np.exp(-(np.arange(7) ** 2) / 4.5)
    expected = np.zeros((28, 28))
    for i, weight in enumerate(weights / weights.sum()):
        along = i if degrees % 90 == 0 else math.ceil(i / math.sqrt(2) - 0.5)
        up = i if degrees % 90 == 0 else -math.ceil(-i / math.sqrt(2) - 0.5)
        expected[14 - step[0] * up, 14 - step[1] * along] += 255 * weight
    assert (y == np.rint(expected)).all()
    assert (blur.motion_blurred(grey(200), np.array([degrees]), 3, 1.5) == 200).all()


@pytest.mark.parametrize("factor", [*(1 + 0.03 * j for j in range(11)), 2.5])
def test_zoom_matrix_agrees_with_scipy(factor):
    x = np.random.default_rng(0).random((28, 28))
    source = math.ceil(28 / factor)
    start = (28 - source) // 2
    crop = x[start : start + source, start : start + source]
    enlarged = ndimage.zoom(crop, factor, order=1)
    cut = (len(enlarged) - 28) // 2
    zoom = blur.zoom_matrix(factor)
    np.testing.assert_allclose(zoom @ x @ zoom.T, enlarged[cut : cut + 28, cut : cut + 28], atol=1e-12)


def test_zoom_blur_keeps_the_centre_and_a_constant():
    assert (corrupt(grey(77), "zoom_blur", 0) == 77).all()
    assert len(blur._ZOOMS) == 11


# Weather


def test_plasma_agrees_with_a_loop():
    uniform = np.random.default_rng(0).random((2, 65535))
    noise = iter((2 * uniform[1] - 1).tolist())
    m = np.zeros((256, 256))
    step, w = 256, 100.0
    while step >= 2:
        h = step // 2
        corners = [(r, c) for r in range(0, 256, step) for c in range(0, 256, step)]

        def jitter(r, c, *neighbours, w=w):
            m[r, c] = sum(m[i % 256, j % 256] for i, j in neighbours) / 4 + w * w * next(noise)

        for r, c in corners:
            jitter(r + h, c + h, (r, c), (r, c + step), (r + step, c), (r + step, c + step))
        for r, c in corners:
            jitter(r, c + h, (r, c), (r, c + step), (r - h, c + h), (r + h, c + h))
        for r, c in corners:
            jitter(r + h, c, (r, c), (r + step, c), (r + h, c - h), (r + h, c + h))
        step, w = h, w / 1.4
    np.testing.assert_allclose(weather.plasma(uniform)[1], m, atol=1e-8)


def test_fog_keeps_the_maximum_and_blends_three_parts_of_cloud():
    assert (corrupt(grey(0), "fog", 0) == 0).all()
    y = corrupt(grey(100, 200), "fog", 0)
    low = 100 * 100 / (100 + 3 * 255)  # P = 0; for P = 1 the result is M
    assert low - 1 < y.min() < low + 15 and 85 < y.max() <= 100


def test_frost():
    flat = [np.full((29, 40), 20 * k, np.uint8) for k in range(5)]
    y = corrupt(grey(100, 1000), "frost", 0, textures=flat)
    levels, counts = np.unique(y[:, 0, 0], return_counts=True)
    assert levels.tolist() == [60 + 15 * k for k in range(5)] and abs(counts - 200).max() < 60
    assert (corrupt(grey(255), "frost", 0, textures=[flat[4] + np.uint8(175)]) == 255).all()


def test_frost_cuts_every_piece_that_fits():
    texture = np.arange(30)[:, None] * 5 + np.arange(31)
    y = corrupt(grey(0, 300), "frost", 0, textures=[texture.astype(np.uint8)])
    corners = [(r, c) for r in range(3) for c in range(4)]
    pieces = {(r, c): (0.75 * texture[r : r + 28, c : c + 28] + 1e-9).astype(int) for r, c in corners}
    found = [[corner for corner, piece in pieces.items() if (image == piece).all()] for image in y]
    assert all(len(matches) == 1 for matches in found)
    # A corner lies in 0 .. H - 29: the last row and column are never reached, as in the release.
    assert {matches[0] for matches in found} == {(r, c) for r in range(2) for c in range(3)}


def test_load_frost_textures(tmp_path):
    colours = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 190, 170], [77, 77, 77]]]
    rgb = np.array(colours, np.uint8)
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", 45455))
    for k in (1, 2, 3):
        Image.fromarray(rgb[:, : 4 - k]).save(tmp_path / f"frost{k}.png", pnginfo=info)
    smooth = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)
    for k in (4, 5):
        Image.fromarray(np.stack([smooth] * 3, axis=-1)).save(tmp_path / f"frost{k}.jpg", quality=95)
    textures = load_frost_textures(tmp_path)
    assert textures[0].tolist() == [
        [147, 200, 95],
        [21, 191, 77],
    ]  # of OpenCV 5.0, imread(path, IMREAD_GRAYSCALE)
    assert [t.shape for t in textures] == [(2, 3), (2, 2), (2, 1), (64, 48), (64, 48)]
    assert all(t.dtype == np.uint8 for t in textures)
    assert np.abs(textures[3].astype(int) - smooth).max() <= 3
    (tmp_path / "frost4.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"frost4\.jpg"):
        load_frost_textures(tmp_path)
    (tmp_path / "frost2.png").unlink()
    with pytest.raises(OSError, match=r"frost2\.png"):
        load_frost_textures(str(tmp_path))


def test_snow(images):
    still = weather.snow(images, {"flakes": Fixed(-9.0), "angle": Fixed(-90.0)})
    assert (still == common.to_uint8(1.225 * images / 255 + 0.225)).all()
    y = corrupt(grey(0, 20), "snow", 0)
    assert (y == y[:, ::-1, ::-1]).all() and y.min() >= 57 and y.max() > 150
    # Flakes are streaks nearer to the vertical than to the horizontal.
    assert np.abs(np.diff(y.astype(int), axis=2)).mean() > 1.5 * np.abs(np.diff(y.astype(int), axis=1)).mean()


def test_spatter(images):
    assert (weather.spatter(images, {"liquid": Fixed(-1.0)}) == images).all()
    assert (weather.spatter(images, {"liquid": Fixed(1.0)}) == 63).all()
    y = corrupt(grey(255, 20), "spatter", 0)
    assert y.min() == 63 and 0.05 < (y < 255).mean() < 0.5 and not ((y > 63 + 0.2 * 192) & (y < 255)).any()


# Geometry


@pytest.mark.parametrize("name", ["rotate", "shear", "scale"])
def test_affine_warps_agree_with_scipy(name, images):
    grid = np.stack([*np.indices((28, 28))[::-1]]) - 13.5

    def warp(image, matrix):
        cols, rows = np.einsum("ij,jrc->irc", matrix, grid) + 13.5
        warped = ndimage.map_coordinates(image / 255, [rows, cols], order=1, mode="grid-constant")
        return common.to_uint8(warped)

    matrices = []
    for t in (0.4, -0.4):
        cos, sin = math.cos(t), math.sin(t)
        matrices.append(
            {"rotate": [[cos, -sin], [sin, cos]], "shear": [[1, -sin], [0, cos]]}.get(name, np.eye(2) / 0.7)
        )
    used = set()
    for image, y in zip(images[:30], corrupt(images, name, 0), strict=False):
        distances = [np.abs(warp(image, matrix).astype(int) - y).max() for matrix in matrices]
        assert min(distances) <= 1
        used.add(int(np.argmin(distances)))
    assert used == ({0} if name == "scale" else {0, 1})


def test_rotate_turns_a_linear_image_in_closed_form():
    rows, cols = np.indices((28, 28))
    y = corrupt(np.repeat((100 + 4 * cols + rows)[None].astype(np.uint8), 8, axis=0), "rotate", 0)
    middle = y[:, 10:18, 10:18].astype(int)
    slopes = [np.diff(middle, axis=2).mean(axis=(1, 2)), np.diff(middle, axis=1).mean(axis=(1, 2))]
    gradients = {tuple(slope) for slope in np.round(slopes, 6).T}
    expected = []
    for t in (0.4, -0.4):
        expected.append((4 * math.cos(t) + math.sin(t), -4 * math.sin(t) + math.cos(t)))
    for gradient in gradients:
        assert min(np.abs(np.subtract(gradient, e)).max() for e in expected) < 0.2
    assert len(gradients) == 2


def test_translate():
    y = corrupt(np.repeat(dot(10, 20), 60, axis=0), "translate", 0)
    positions = {tuple(map(int, np.argwhere(image)[0])) for image in y}
    assert positions == {(7, 17), (7, 23), (13, 17), (13, 23)} and (y.sum(axis=(1, 2)) == 255).all()
    # What leaves the image is lost.
    y = corrupt(np.repeat(dot(1, 1), 60, axis=0), "translate", 0)
    assert set(y.sum(axis=(1, 2)).tolist()) == {0, 255} and set(y[:, 4, 4].tolist()) == {0, 255}


def test_elastic_transform(images):
    still = {"anchors": Fixed(0.0), "shifts": Fixed(0.0)}
    assert (geometry.elastic_transform(images, still) == images).all()
    moved = geometry.elastic_transform(images, still | {"anchors": Fixed(np.array([2.0, -1.0]))})
    assert (moved[:, :27, 2:] == images[:, 1:, :26]).all()
    shift = Fixed(np.array([1, -2]).reshape(2, 1, 1) / 56)
    shifted = geometry.elastic_transform(images, still | {"shifts": shift})
    assert np.abs(shifted[:, 3:, :26].astype(int) - images[:, 1:26, 1:27]).max() <= 1
    # Nothing is taken from beyond the centres of the outermost pixels.
    assert not shifted[:, :2].any() and not shifted[:, :, 27:].any()


# Drawing


def test_line_intensity():
    level = drawing.line_intensity(*np.array([[3.2], [10.0], [20.5], [10.0]]))[0]
    assert (level[:, :3] == 0).all() and (level[:, 21:] == 0).all()  # floor(c0) to ceil(c1) - 1
    expected = np.zeros(28)
    expected[10], expected[[9, 11]] = 1, 1 + math.log(1 - 1 / 2.3)
    np.testing.assert_allclose(level[:, 3:21], expected[:, None] * np.ones(18), atol=1e-12)
    # The distance is vertical: a slope of 1/2 passes halfway between two rows in every other column.
    level = drawing.line_intensity(*np.array([[0], [0], [26], [13]]))[0]
    np.testing.assert_allclose(level[2:5, 7], 1 + np.log(1 - np.array([1.5, 0.5, 0.5]) / 2.3).clip(-1))


def test_line():
    y = corrupt(grey(0, 400), "line", 0)
    lit = y.any(axis=1)
    assert set(lit.argmax(axis=1).tolist()) == set(range(5))
    assert set((27 - lit[:, ::-1].argmax(axis=1)).tolist()) == set(range(21, 26))
    assert set(y[:, :, 13].argmax(axis=1).tolist()) >= set(range(3, 24))
    assert (corrupt(grey(200, 40), "line", 0) >= 200).all()


def test_dotted_line():
    y = corrupt(grey(0, 200), "dotted_line", 0)
    on = np.array([c for c in range(27) if c // 2 % 2])
    assert (y.any(axis=(0, 1)) == np.isin(np.arange(28), on)).all()
    assert y[:, :, on].any(axis=1).all()


@pytest.mark.parametrize(("row", "rise"), [(10, 0), (0, 4), (26, -5), (13, -2)])
def test_zigzag_is_the_sum_of_its_segments(row, rise):
    theta = math.atan(rise / 23)
    length = math.hypot(23, rise)
    turns = [(0, 0), *((2 * (2 * i + 1), 2 * (-1) ** i) for i in range(6)), (length, -1 / (length - 20))]
    cos, sin = math.cos(theta), math.sin(theta)
    points = [(2 + a * cos - b * sin, row + a * sin + b * cos) for a, b in turns]
    total = np.zeros((28, 28))
    for (c0, r0), (c1, r1) in zip(points, points[1:], strict=False):
        for c in range(math.floor(c0), min(28, math.ceil(c1))):
            for r in range(28):
                distance = abs(r - (r0 + (r1 - r0) / (c1 - c0) * (c - c0)))
                if distance < 2.3:
                    total[r, c] = min(1, total[r, c] + max(0, 1 + math.log(1 - distance / 2.3)))
    y = drawing.zigzag(grey(0), {"row": Fixed(row), "rise": Fixed(rise)})[0]
    assert np.abs(y.astype(int) - common.to_uint8(total)).max() <= 1


def test_zigzag_draws():
    rows, rises = np.indices((27, 10)).reshape(2, -1, 1)
    every = drawing.zigzag(grey(0, 270), {"row": Fixed(rows), "rise": Fixed(rises - 5)})
    found = {image.tobytes() for image in corrupt(grey(0, 3000), "zigzag", 0)}
    assert found == {image.tobytes() for image in every}


def test_stripe():
    y = corrupt(grey(50), "stripe", 0)[0]
    assert (y[:, 7:21] == 50).all() and (y[:, :7] == 205).all() and (y[:, 21:] == 205).all()


# Digital processing


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brightness", {0: 127, 10: 137, 127: 254, 128: 255, 255: 255}),
        ("saturate", {0: 49, 3: 108, 10: 245, 11: 249, 255: 249}),
        ("inverse", {0: 255, 1: 254, 255: 0}),
        ("quantize", {0: 0, 127: 0, 128: 255, 255: 255}),
    ],
)
def test_grey_level_curves(name, expected):
    assert {level: int(corrupt(grey(level), name, 0)[0, 5, 5]) for level in expected} == expected


def test_contrast():
    x = grey(0)
    x[0, :14] = 255
    y = corrupt(x, "contrast", 0)[0]
    assert (y[:14] == int(0.55 * 255)).all() and (y[14:] == int(0.45 * 255)).all()


def test_pixelate_takes_means_over_cells(images):
    # Both resizes take the pixels whose centre is in a cell of 28/11 pixels.
    cell = ((np.arange(28) + 0.5) * 11 / 28).astype(int)
    mean = (cell[:, None] == cell) / np.bincount(cell)[cell]
    y = corrupt(images, "pixelate", 0).astype(int)
    assert np.abs(y - mean @ images @ mean.T).max() < 1.01


def test_jpeg_compression_keeps_a_constant_and_little_else(images):
    assert (corrupt(grey(128), "jpeg_compression", 0) == 128).all()
    error = np.abs(corrupt(images, "jpeg_compression", 0)[:30].astype(int) - images[:30])
    assert 3 < error.mean() < 25


def test_canny_edges_agrees_with_scikit_image(images):
    expected = [canny(image / 255, sigma=1, low_threshold=0.1, high_threshold=0.2) for image in images]
    y = corrupt(images, "canny_edges", 0)
    assert (y == 255 * np.array(expected)).all() and y.any()


# The release: what is known of its own output for 100 test images, and statistics of it over all 10,000


def existing(path: Path, what: str) -> Path:
    if not path.exists():
        pytest.skip(f"{what} not found: {path}")
    return path


FACTS = json.loads((ROOT / "tests" / "mnist_c_facts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def digits(mnist):
    return np.load(mnist / "test.npz")["images"].reshape(-1, 28, 28)


@pytest.fixture(scope="module")
def clean(digits):
    """The 100 images."""
    images = digits[FACTS["index"]]
    assert crcs(images) == FACTS["images"]["identity"]
    return images


def crcs(images):
    return [zlib.crc32(np.ascontiguousarray(image)) for image in images]


@pytest.fixture
def truncating_motion_blur(monkeypatch):
    """The statistics were made with an ImageMagick that truncates, the release with one that rounds."""
    monkeypatch.setattr(blur, "_rounded", lambda s: np.floor(np.floor(257 * s + 0.5) / 257).astype(np.uint8))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_release_pixel_for_pixel(name, clean):
    found = corrupt(clean, name, 0)
    if name == "zoom_blur":  # made in float32: a grey level in 10,000 pixels
        difference = found.sum(axis=(1, 2), dtype=int) - FACTS["sums"][name]
        assert np.abs(difference).max() <= 2 and np.abs(difference).sum() <= 8
    else:
        assert crcs(found) == FACTS["images"][name]


@pytest.mark.parametrize(
    ("name", "draws"),
    [("rotate", 20), ("shear", 20), ("translate", 40), ("motion_blur", 2000), ("zigzag", 2500), ("dotted_line", 7000)],
)
def test_release_is_one_of_the_draws(name, draws, clean):
    """Where the draws are few, those of the release are among many of ours, pixel for pixel."""
    for image, expected in zip(clean, FACTS["drawn"][name], strict=False):
        assert expected in crcs(corrupt(np.repeat(image[None], draws, axis=0), name, 0))


# Standard deviations over seeds of the statistics in the facts.
SPREAD = {
    "fog": (0.49, 0.23, 0.34, 0.037, 0.0013),
    "impulse_noise": (0.03, 0.026, 0.028, 0.0054, 0),
    "rotate": (0.0004, 0.0006, 0.0015, 1e-4, 2e-5),
    "shot_noise": (0.015, 0.023, 0.015, 0.0047, 0.0007),
    "translate": (0.0041, 0.0037, 0.054, 0.0073, 1.1e-5),
    "glass_blur": (0.0001, 0.0081, 0.012, 0.0022, 0.0008),
    "spatter": (0.04, 0.034, 0.035, 0.0069, 0.0015),
    "zigzag": (0.025, 0.016, 0.025, 0.006, 0),
    "dotted_line": (0.0087, 0.0046, 0.0087, 0.0031, 0.0002),
    "motion_blur": (0.001, 0.037, 0.029, 0.0035, 0.0002),
    "shear": (0.001, 0.0005, 0.017, 0.0036, 5e-5),
    "frost": (0.2, 0.086, 0.19, 0.022, 0.001),
    "gaussian_noise": (0.034, 0.021, 0.026, 0.0039, 1e-4),
    "speckle_noise": (0.01, 0.017, 0.01, 0.0033, 0.0003),
    "elastic_transform": (0.086, 0.076, 0.095, 0.017, 0.0005),
    "line": (0.017, 0.0083, 0.017, 0.0046, 5e-5),
    "snow": (0.1, 0.045, 0.1, 0.014, 0.001),
}


def statistics(y, x):
    """As in the facts: mean and standard deviation of the pixels, mean distances to the clean images."""
    difference = np.abs(y.astype(np.float32) - x) / 255
    l2 = np.sqrt(np.einsum("nij,nij->n", difference, difference, dtype=float))
    linf = difference.max(axis=(1, 2))
    moments = y.mean(), y.std(), 255 * difference.mean(dtype=float)
    return np.array([*moments, l2.mean(), linf.mean(dtype=float)])


@pytest.mark.parametrize("name", RANDOM)
def test_release_statistics(name, digits, truncating_motion_blur):
    expected, tolerance = np.array(FACTS["statistics"][name]), 6 * np.array(SPREAD.get(name, 0)) + 1e-4
    data = {}
    if name == "frost":
        data = {"textures": load_frost_textures(existing(FROST, "frost textures"))}
    elif name == "pessimal_noise":
        data = {"pattern": np.load(existing(ROOT / "data" / "mnist_c" / "pessimal.npz", "our pattern"))["pattern"]}
        tolerance = 0.04 * expected + np.array([0, 0, 1, 0, 0.1])  # the release's pattern is another
    found = statistics(corrupt(digits, name, 1, **data), digits)
    assert (np.abs(found - expected) <= tolerance).all(), (found - expected).tolist()


def test_release_frost_textures():
    textures = load_frost_textures(existing(FROST, "frost textures"))
    assert [t.shape for t in textures] == [(600, 900), (315, 560), (315, 560), (350, 527), (495, 660)]
    # Of what OpenCV 5.0 decodes.
    assert crcs(textures) == [437987792, 4266254767, 4266254767, 2300065764, 1476167451]
