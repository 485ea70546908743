"""The figures of accuracy under the ladder, from made-up records."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust.displays.strongest.display import Display, check
from dprobust.displays.strongest.show import show
from dprobust.showing import Given

BOTH = ["sgd", {"sigma": 1.3, "clip": 1.0}]
SGD, DP = runs(*BOTH)
RUNGS = ("clean", "fgsm", "pgd", "square")
LOST = {0.05: (0, 5, 10, 25), 0.1: (0, 10, 20, 50)}
"""eps -> images of 100 that the ladder up to each rung has broken, of those right without attack."""


@pytest.fixture
def arrays():
    kept = {}
    for run, clean in ((SGD.name, 96), (DP.name, 90)):
        for seed in (0, 1):
            broken = np.full((2, 100), -1, np.int8)
            for row, lost in zip(broken, LOST.values(), strict=True):
                right = clean + 2 * seed
                row[right:] = 0
                for rung in (3, 2, 1):
                    row[: lost[rung]] = rung
            kept["ladder", "mnist", run, seed] = {
                "rung": np.array(RUNGS),
                "eps": np.array([*LOST]),
                "norm": np.array(["linf"]),
                "broken_by": broken,
            }
    return kept


def draw(arrays, **settings):
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=runs(*BOTH), arrays=arrays, privacy=privacy)
    return show(given, Display(shows="strongest", runs=BOTH, **settings))


def test_curves_start_without_attack_and_end_with_the_last_rung(arrays):
    figure, data = draw(arrays)
    axes, gap = figure.axes
    solid, dashed = axes.get_lines()[:2]
    assert list(solid.get_xdata()) == list(dashed.get_xdata()) == [0, 0.05, 0.1]
    assert list(solid.get_ydata()) == pytest.approx([0.97, 0.72, 0.47])
    assert list(dashed.get_ydata()) == pytest.approx([0.97, 0.87, 0.77])
    assert list(gap.get_lines()[0].get_ydata()) == pytest.approx([6, 6, 6])
    alone = data[(data["run"] == DP.name) & (data["after"] == "whole ladder") & (data["minus"] == "")]
    assert alone["mean"].tolist() == pytest.approx([0.91, 0.66, 0.41]) and set(alone["seeds"]) == {2}
    texts = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert "the whole ladder" in texts and "the ladder up to PGD, cross-entropy" in texts


def test_the_whole_ladder_alone_without_the_gap(arrays):
    figure, data = draw(arrays, early="none", gap=False)
    assert len(figure.axes) == 1 and len(figure.axes[0].get_lines()) == 2 and set(data["after"]) == {"whole ladder"}


def test_what_is_not_measured_is_refused():
    measured = {"ladder": type("Measured", (), {"rungs": ["fgsm", "square"]})}
    display = Display(shows="strongest", runs=BOTH)
    with pytest.raises(PydanticCustomError, match=r"early: pgd is not among datasets\.mnist\.metrics\.ladder\.rungs"):
        check(display, [SGD, DP], measured)
    with pytest.raises(PydanticCustomError, match="gap: needs two runs"):
        check(display.model_copy(update={"early": "fgsm"}), [SGD], measured)
    check(display.model_copy(update={"early": "none"}), [SGD, DP], measured)
