"""Fig 4 from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from matplotlib.text import Text
from pydantic_core import PydanticCustomError

from dprobust import style
from dprobust.metrics.pgd_iterations.display import Display, check
from dprobust.metrics.pgd_iterations.show import show
from dprobust.showing import Given

BOTH = ["sgd", {"sigma": 1.3, "clip": 1.0}]
SGD, DP = runs(*BOTH)
STEPS = 4
COUNTS = {SGD: [10, 0, 30, 30, 0, 30], DP: [20, 40, 20, 0, 0, 20]}
"""Images wrong from the start, fooled at steps 1 to 4, never fooled."""


def draw(arrays, entries=BOTH, note="", **settings):
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=runs(*entries), arrays=arrays, privacy=privacy, note=note)
    return show(given, Display(shows="pgd_iterations", runs=entries, **settings))


@pytest.fixture
def records():
    """Along ce as in COUNTS; along ce_stable no image is left after the first step."""
    made = {}
    for run, counts in COUNTS.items():
        ce = np.repeat(np.arange(STEPS + 2), counts)
        stable = np.repeat([0, 1], [counts[0], 100 - counts[0]])
        for seed in (0, 1):
            first = np.broadcast_to(np.stack([ce, stable])[:, None, None], (2, 2, 2, 100)).astype(np.uint8)
            made["pgd_iterations", "mnist", run.name, seed] = {
                "loss": np.array(["ce", "ce_stable"]),
                "eps": np.array([0.1, 0.3]),
                "alpha": np.array([0.01, 0.05]),
                "steps": np.array([STEPS]),
                "first": first,
            }
    return made


SHARES = {
    "right": {SGD: [0, 0, 1 / 3, 2 / 3, 2 / 3], DP: [0, 0.5, 0.75, 0.75, 0.75]},
    "all": {SGD: [0.1, 0.1, 0.4, 0.7, 0.7], DP: [0.2, 0.6, 0.8, 0.8, 0.8]},
}
HALF = {"right": {SGD: 3, DP: 1}, "all": {SGD: 3, DP: 1}}


def test_curves_are_shares_of_the_initially_right_above_and_of_all_below(records):
    figure, data = draw(records, note="demo", title="T")
    assert [axes.get_title("left") for axes in figure.axes[:2]] == ["eps = 0.1", "eps = 0.3"]
    assert figure.get_supxlabel() == "demo" and figure.get_suptitle() == "T"
    colours = style.colours([SGD, DP])
    for row, of in zip((figure.axes[:2], figure.axes[2:]), SHARES, strict=True):
        for axes in row:
            for run, expected in SHARES[of].items():
                own = [line for line in axes.get_lines() if line.get_color() == colours[run]]
                lines = [line for line in own if line.get_marker() == "None"]
                assert [line.is_dashed() for line in lines] == [True, False]  # alpha from small to large
                for line in lines:
                    np.testing.assert_array_equal(line.get_xdata(), range(STEPS + 1))
                    np.testing.assert_allclose(line.get_ydata(), expected)
                assert [list(line.get_xdata()) for line in own if line.get_marker() == "o"] == [[HALF[of][run]]] * 2
    assert "classified right" in figure.axes[0].get_ylabel() and "all images" in figure.axes[2].get_ylabel()
    assert len(data) == 2 * 2 * 2 * 2 * (STEPS + 1) and set(data["seeds"]) == {2}
    last = data[(data["iterations"] == STEPS)].groupby(["of", "run"])["mean"].unique()
    assert 1 - last["right", "sgd"] == pytest.approx(30 / 90) and 1 - last["right", DP.name] == pytest.approx(20 / 80)
    assert 1 - last["all", "sgd"] == pytest.approx(30 / 100) and 1 - last["all", DP.name] == pytest.approx(20 / 100)


def test_one_loss_is_shown(records):
    figure, data = draw(records, loss="ce_stable")
    last = data[(data["iterations"] == STEPS)]
    assert (last["mean"] == 1).all() and len(last) == 2 * 2 * 2 * 2
    assert any("cross-entropy without round-off" in text.get_text() for text in figure.legends[0].get_texts())


def test_one_seed_has_bands_over_images_and_one_panel_is_enough(records):
    one = {key: of | {"eps": of["eps"][1:], "first": of["first"][:, 1:]} for key, of in records.items() if key[3] == 0}
    figure, data = draw(one, BOTH[1:])
    assert len(figure.axes) == 2 and all(len(axes.collections) == 2 for axes in figure.axes)
    assert set(data["run"]) == {DP.name} and (data["low"] <= data["mean"]).all()


def test_no_image_right_at_the_start(records):
    """Then there is no share of those that were."""
    _, data = draw({key: of | {"first": 0 * of["first"]} for key, of in records.items()})
    assert set(data["of"]) == {"all"} and (data["mean"] == 1).all()


def test_every_step_size_has_a_line_of_its_own(records):
    six = {
        key: of | {"alpha": np.arange(1.0, 7), "first": of["first"][:, :, :1].repeat(6, 2)}
        for key, of in records.items()
    }
    figure, _ = draw(six)
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() == "None"]
    assert len(lines) == 12 and len({str(line._dash_pattern) for line in lines}) == 6


def test_the_note_collides_with_nothing(records):
    """It once stood on the title of the last panel."""
    figure, _ = draw(records, note="a demonstration, whose numbers mean nothing at all", title="T")
    figure.draw_without_rendering()
    (text,) = (text for text in figure.findobj(Text) if text.get_text() == figure.get_supxlabel())
    note = text.get_window_extent()
    assert note.width > 50
    for axes in figure.axes:
        assert not note.overlaps(axes.get_tightbbox())


def test_the_loss_must_be_measured():
    measured = {"pgd_iterations": type("Measured", (), {"losses": ["ce"]})}
    with pytest.raises(
        PydanticCustomError, match=r"loss: ce_stable is not among datasets\.mnist\.metrics\.pgd_iterations"
    ):
        check(Display(shows="pgd_iterations", runs=BOTH, loss="ce_stable"), [SGD, DP], measured)
    with pytest.raises(PydanticCustomError, match=r"loss: worst needs two or more .*\(ce\)"):
        check(Display(shows="pgd_iterations", runs=BOTH, loss="worst"), [SGD, DP], measured)
    check(Display(shows="pgd_iterations", runs=BOTH), [SGD, DP], measured)


def test_same_records_same_bytes(records, tmp_path):
    for name in "ab":
        figure, _ = draw(records, title="T")
        style.save(figure, tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
