"""The gap taken apart, from made-up images."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust.displays.decomposition.display import Display, check
from dprobust.displays.decomposition.show import show
from dprobust.displays.decomposition_figure.display import Display as FigureDisplay
from dprobust.displays.decomposition_figure.show import show as draw
from dprobust.displays.families.display import Display as FamiliesDisplay
from dprobust.displays.families.show import show as families
from dprobust.metrics.fgsm.settings import Metric
from dprobust.showing import Given

FOUR = [
    {"algorithm": "sgd", "coupled": "why"},
    {"algorithm": "sgd", "clip": 1.0, "coupled": "why"},
    {"algorithm": "sgd", "sigma": 1.3, "coupled": "why"},
    {"sigma": 1.3, "clip": 1.0, "coupled": "why"},
]
ENTRIES = [*FOUR, {"algorithm": "sgd", "lr": 0.1}]
RIGHT = (80, 70, 60, 40, 75)
"""Images of 100 that each run has right, the second seed two more; along the second loss all are."""


def given():
    arrays = {}
    for run, right in zip(runs(*ENTRIES), RIGHT, strict=True):
        for seed in (0, 1):
            wrong = (np.arange(100) >= right + 2 * seed).astype(np.uint8)
            predicted = np.stack([np.stack([wrong, wrong * 0]), np.zeros((2, 100), np.uint8)])
            arrays["fgsm", "mnist", run.name, seed] = {
                "eps": np.array([0.1, 0.2]),
                "predicted": predicted,
                "label": np.zeros(100, np.uint8),
            }
    return Given(runs=runs(*ENTRIES), arrays=arrays)


def test_shares_are_shapleys_and_add_up_to_the_gap():
    data, table = show(given(), Display(shows="decomposition", runs=ENTRIES, eps=[0.1, 0.2]))
    first = data[data["eps"] == 0.1].set_index("quantity")
    expected = {"clipping alone": -10, "noise alone": -20, "both: the whole gap": -40, "interaction": -10}
    expected |= {"share of clipping": -15, "share of noise": -25}
    assert first["points"][list(expected)].to_dict() == pytest.approx(expected)
    assert first["points"].iloc[-1] == pytest.approx(-5) and first["kind"].iloc[-1] == "run"
    assert first["part"]["share of noise"] == pytest.approx(25 / 40)
    assert (first["low"] <= first["points"]).all() and (first["points"] <= first["high"]).all()
    assert first["part_low"]["both: the whole gap"] == pytest.approx(1)
    assert data[data["eps"] == 0.2]["part"].isna().all() and len(table) == len(data)


def test_the_figure_has_the_numbers_of_the_table():
    figure, data = draw(given(), FigureDisplay(shows="decomposition_figure", runs=ENTRIES, eps=[0.1, 0.2]))
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx(data[data["eps"] == 0.1]["points"].tolist()) and len(figure.axes) == 2


def test_what_a_decomposition_needs():
    def checked(entries, **settings):
        check(Display(shows="decomposition", runs=entries, **settings), runs(*entries), {"fgsm": Metric()})

    checked(ENTRIES)
    with pytest.raises(PydanticCustomError, match="no run for noise"):
        checked([FOUR[0], FOUR[1], FOUR[3]])
    with pytest.raises(PydanticCustomError, match="are not coupled"):
        checked([*FOUR[:3], {"sigma": 1.3, "clip": 1.0}])
    with pytest.raises(PydanticCustomError, match="eps: 0.11 is not among"):
        checked(FOUR, eps=[0.11])


def test_a_family_is_a_line_along_epsilon():
    entries = [FOUR[0], {"sigma": [2.0, 1.3], "clip": [0.5, 1.0]}]
    shown = runs(*entries)
    arrays = {}
    for i, run in enumerate(shown):
        for seed in (0, 1):
            wrong = (np.arange(100) >= 50 + 10 * i + 2 * seed).astype(np.uint8)
            arrays["fgsm", "mnist", run.name, seed] = {
                "loss": np.array(["ce"]),
                "eps": np.array([0.1]),
                "predicted": wrong[None, None],
                "label": np.zeros(100, np.uint8),
            }
    epsilon = pd.DataFrame([{"run": r.name, "delta": 1e-6, "epsilon": 4 / r.sigma} for r in shown if r.private])
    settings = FamiliesDisplay(shows="families", runs=entries)
    figure, data = families(Given(runs=shown, arrays=arrays, privacy=epsilon), settings)
    lines = [line.get_xydata() for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(lines, [[[2, 0.61], [4 / 1.3, 0.81]], [[2, 0.71], [4 / 1.3, 0.91]]])
    assert np.isinf(data["epsilon"].iloc[0]) and data["mean"].iloc[0] == pytest.approx(0.51)
