"""Fig 4 from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest

from dprobust.plots import pgd_iterations, style
from dprobust.study import Run

SGD, DP = Run(), Run(1.3, 1.0)
STEPS = 4
COUNTS = {SGD: [10, 0, 30, 30, 0, 30], DP: [20, 40, 20, 0, 0, 20]}
"""Images wrong from the start, fooled at steps 1 to 4, never fooled."""


@pytest.fixture
def records():
    metrics = ["wrong_from_the_start", *["fooled"] * STEPS, "never_fooled"]
    made = []
    for run, counts in COUNTS.items():
        for seed in (0, 1):
            for eps in (0.1, 0.3):
                for alpha in (0.01, 0.05):
                    about = {"run": run.name, "seed": seed, "eps": eps, "alpha": alpha, "n": 100}
                    steps = [*range(STEPS + 1), STEPS]
                    made += [
                        about | {"metric": metric, "iterations": step, "value": count}
                        for metric, step, count in zip(metrics, steps, counts, strict=True)
                    ]
    return pd.DataFrame(made)


def test_curves_are_shares_of_the_initially_right(records):
    figure, data = pgd_iterations.draw(records, [SGD, DP], {"title": "T"}, {DP.name: 1.89}, "demo")
    assert [axes.get_title("left") for axes in figure.axes] == ["eps = 0.1", "eps = 0.3"]
    assert figure.axes[-1].get_title("right") == "demo" and figure.get_suptitle() == "T"
    curves = {Run(): [0, 0, 1 / 3, 2 / 3, 2 / 3], DP: [0, 0.5, 0.75, 0.75, 0.75]}
    colours = style.colours([SGD, DP])
    for axes in figure.axes:
        for run, expected in curves.items():
            own = [line for line in axes.get_lines() if line.get_color() == colours[run]]
            lines = [line for line in own if line.get_marker() == "None"]
            assert [line.is_dashed() for line in lines] == [True, False]  # alpha from small to large
            for line in lines:
                np.testing.assert_array_equal(line.get_xdata(), range(STEPS + 1))
                np.testing.assert_allclose(line.get_ydata(), expected)
            half = {SGD: 3, DP: 1}[run]
            assert [list(line.get_xdata()) for line in own if line.get_marker() == "o"] == [[half]] * 2
    assert len(data) == 2 * 2 * 2 * (STEPS + 1) and set(data["seeds"]) == {2}
    last = data[data["iterations"] == STEPS].groupby("run")["mean"].unique()
    assert 1 - last["sgd"] == pytest.approx(30 / 90) and 1 - last[DP.name] == pytest.approx(20 / 80)


def test_one_seed_has_no_bands_and_one_panel_is_enough(records):
    one = records[(records["seed"] == 0) & (records["eps"] == 0.3)]
    figure, data = pgd_iterations.draw(one, [DP], {"title": ""}, {})
    (axes,) = figure.axes
    assert not axes.collections and set(data["run"]) == {DP.name}


def test_same_records_same_bytes(records, tmp_path):
    for name in "ab":
        figure, _ = pgd_iterations.draw(records, [SGD, DP], {"title": "T"}, {})
        style.save(figure, tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
