"""Fig 1 from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from dprobust.plots import cross_sections, style
from dprobust.study import Run

SGD, DP = Run(), Run(1.3, 1.0)
SIDE = 41
OFFSETS = np.linspace(-2, 2, SIDE)


def grid(run, sample):
    """Class 3 below a boundary, above it class 7 (SGD) or 7 left of the middle and 8 right of it (DP-SGD)."""
    up, along = np.meshgrid(OFFSETS, OFFSETS, indexing="ij")
    wrong = np.where(run.private & (along > 0), 8, 7)
    return np.where(up > 0.5 + 0.5 * sample, wrong, 3)


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
    figure, data = cross_sections.draw(records, [SGD, DP], {"title": "T"}, {DP.name: 1.89}, "demo")
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
    assert colours[3] == pytest.approx(to_rgb(cross_sections.RIGHT)) and len(set(colours.values())) == 3
    assert all(colours[c][0] > 1.5 * max(colours[c][1:]) or colours[c][0] > 0.9 for c in (7, 8))
    assert list(data["run"]) == ["sgd", "sgd", DP.name, DP.name] and list(data["classes"]) == [2, 2, 3, 3]
    assert list(data["distance"]) == [0.5, 1.0, 0.5, 1.0] and set(data["predicted"]) == {3}
    np.testing.assert_allclose(data["right"], [(grid(*key) == 3).mean() for key in [(SGD, 0), (SGD, 1)] * 2])


def test_one_model_one_class(records):
    """A network that never errs in the square has no boundary to draw."""
    flat = records[(records["run"] == "sgd") & (records["sample"] == 0)].copy()
    flat.loc[flat["metric"] == "class", "value"] = 3
    figure, data = cross_sections.draw(flat, [SGD], {"title": ""}, {})
    assert not figure.axes[1].collections and data["right"].item() == 1


def test_a_digit_stands_where_its_region_is_widest():
    region = np.zeros((9, 9), bool)
    region[2:7, 1:6] = True
    region[4, 6:] = True
    assert cross_sections._inside(region) == (4, 3, 3)
    assert cross_sections._inside(np.eye(1, 5, 2, dtype=bool)) == (0, 2, 1)


def test_same_records_same_bytes(records, tmp_path):
    for name in "ab":
        figure, _ = cross_sections.draw(records, [SGD, DP], {"title": "T"}, {})
        style.save(figure, tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
