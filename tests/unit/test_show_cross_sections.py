"""Fig 1 from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from dprobust import style
from dprobust.metrics.cross_sections import show as module
from dprobust.metrics.cross_sections.display import Display
from dprobust.metrics.cross_sections.show import show
from dprobust.showing import Given

SGD, DP = runs("sgd", {"sigma": 1.3, "clip": 1.0})
SIDE = 41
OFFSETS = np.linspace(-2, 2, SIDE)


def grid(run, sample):
    """Class 3 below a boundary, above it class 7 (SGD) or 7 left of the middle and 8 right of it (DP-SGD)."""
    up, along = np.meshgrid(OFFSETS, OFFSETS, indexing="ij")
    wrong = np.where(run.private & (along > 0), 8, 7)
    return np.where(up > 0.5 + 0.5 * sample, wrong, 3)


def draw(records, shown=(SGD, DP), note="", **settings):
    entries = ["sgd" if run is SGD else {"sigma": run.sigma, "clip": run.clip} for run in shown]
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=tuple(shown), records={"cross_sections": records}, privacy=privacy, note=note)
    return show(given, Display(shows="cross_sections", runs=entries, **settings))


@pytest.fixture
def records():
    made = []
    for run in (SGD, DP):
        for seed in (0, 1):
            for sample in (0, 1):
                values = {
                    "label": [3],
                    "predicted": [3],
                    "pixel": np.linspace(0, 1, 16),
                    "offset": OFFSETS,
                    "class": grid(run, sample).ravel() if seed == 0 else np.zeros(SIDE**2),
                    "distance": [0.5 + 0.5 * sample],
                }
                about = {"run": run.name, "seed": seed, "sample": sample}
                for metric, column in values.items():
                    edges = np.flatnonzero(np.diff(column, prepend=np.nan))
                    for start, stop in zip(edges, [*edges[1:], len(column)], strict=True):
                        made.append(about | {"metric": metric, "repeat": stop - start, "value": column[start]})
    return pd.DataFrame(made)


def test_squares_are_the_grids_of_the_first_seed(records):
    figure, data = draw(records, note="demo", title="T")
    thumbnails, squares = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title() for axes in thumbnails] == ["test image 0", "test image 1"]
    np.testing.assert_allclose(thumbnails[0].images[0].get_array(), np.linspace(0, 1, 16).reshape(4, 4))
    colours = {}
    for axes, (run, sample) in zip(squares, [(SGD, 0), (SGD, 1), (DP, 0), (DP, 1)], strict=True):
        (image,) = axes.images
        assert image.origin == "lower" and image.get_extent() == pytest.approx([-2.05, 2.05, -2.05, 2.05])
        drawn = image.cmap(image.norm(image.get_array()))[..., :3]
        for c in np.unique(grid(run, sample)):
            (colour,) = np.unique(drawn[grid(run, sample) == c], axis=0)
            assert colours.setdefault(c, tuple(colour)) == tuple(colour)  # the same in every square
        assert {text.get_text() for text in axes.texts} == ({"7", "8"} if run.private else {"7"})
    assert colours[3] == pytest.approx(to_rgb(module.OWN)) and len(set(colours.values())) == 3
    assert all(colours[c][0] > colours[c][1] > colours[c][2] for c in (7, 8))  # orange to brown
    assert figure.get_suptitle() == "T" and figure.get_supxlabel() == "demo"
    assert [axes.get_ylabel() for axes in squares if axes.get_ylabel()] == ["SGD", "DP-SGD σ = 1.3, C = 1\n(ε = 1.89)"]
    assert list(data["run"]) == ["sgd", "sgd", DP.name, DP.name] and list(data["classes"]) == [2, 2, 3, 3]
    assert list(data["distance"]) == [0.5, 1.0, 0.5, 1.0] and set(data["predicted"]) == {3}
    np.testing.assert_allclose(data["right"], [(grid(*key) == 3).mean() for key in [(SGD, 0), (SGD, 1)] * 2])


def test_one_model_one_class(records):
    """A network that never errs in the square has no boundary to draw."""
    flat = records[(records["run"] == "sgd") & (records["sample"] == 0)].copy()
    flat.loc[flat["metric"] == "class", "value"] = 3
    figure, data = draw(flat, [SGD])
    assert not figure.axes[1].collections and data["right"].item() == 1


def test_a_digit_stands_where_its_region_is_widest():
    region = np.zeros((9, 9), bool)
    region[2:7, 1:6] = True
    region[4, 6:] = True
    assert module._inside(region) == (4, 3, 3)
    assert module._inside(np.eye(1, 5, 2, dtype=bool)) == (0, 2, 1)


def test_same_records_same_bytes(records, tmp_path):
    for name in "ab":
        figure, _ = draw(records, title="T")
        style.save(figure, tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


# Machado, Oliveira and Fernandes 2009, at full severity, for linear RGB.
BLINDNESS = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def linear(colour):
    colour = np.asarray(colour)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def seen(colour, matrix):
    """CIE Lab of a colour as someone sees it."""
    light = np.clip(np.asarray(matrix) @ linear(colour), 0, 1)
    return rgb2lab(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_colour_blind_tell_the_images_class_from_every_other(blindness):
    matrix = BLINDNESS[blindness]
    for number in range(1, 10):
        for other in module.shades(set(range(number))).values():
            assert deltaE_ciede2000(seen(to_rgb(module.OWN), matrix), seen(other, matrix)) >= 12
    # The yardstick bites: green beside reds, which Fig 1 once had.
    reds = [seen(to_rgb(red), matrix) for red in ("#F4A58A", "#E0664F")]
    assert min(deltaE_ciede2000(seen(to_rgb("#5BAE6A"), matrix), red) for red in reds) < 12


def test_numbers_of_classes_can_be_read():
    """WCAG 2 asks for a contrast of 4.5 for text."""
    weights = [0.2126, 0.7152, 0.0722]
    for number in range(1, 10):
        for colour in module.shades(set(range(number))).values():
            luminance = float(linear(colour) @ weights)
            black, white = (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)
            assert {"black": black, "white": white}[module.ink(colour)] == pytest.approx(max(black, white))
            assert max(black, white) >= 4.5


def test_the_first_seed_is_that_of_the_runs_shown(records):
    """Records may hold other runs, with other seeds first."""
    other = records[(records["run"] == "sgd") & (records["seed"] == 1)].assign(run="sgd_lr=0.1", seed=9)
    _, data = draw(pd.concat([other, records]))
    assert list(data["classes"]) == [2, 2, 3, 3]
