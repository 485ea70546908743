"""The page of images lost in common, from made-up predictions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust.displays.fragile_images.display import Display, check
from dprobust.displays.fragile_images.show import COUNTS, show
from dprobust.rendering import interval
from dprobust.showing import Given
from dprobust.statistics import mean_interval

ENTRIES = ["sgd", {"sigma": 1.3, "clip": 1.0}]
SGD, DP = (run.name for run in runs(*ENTRIES))
# One letter an image: o is right always, x right without the attack only, - wrong always.
# Both right without attack: 12, of them lost by both 3, by the first only 2, by the second only 6, by neither 1.
FIRST = "xxx" + "xx" + "oooooo" + "o" + "-x-"
SECOND = "xxx" + "oo" + "xxxxxx" + "o" + "x--"


def arrays(letters, index=None, losses=("ce",), eps=(0.0, 0.1)):
    n = len(letters)
    label = np.arange(n, dtype=np.uint8) % 10
    predicted = np.tile(label, (len(losses), len(eps), 1))
    predicted[:, :, [letter == "-" for letter in letters]] += 1
    predicted[-1, 1, [letter == "x" for letter in letters]] += 1  # along the last loss only
    index = np.arange(n) if index is None else np.asarray(index)
    return {"predicted": predicted, "label": label, "index": index, "loss": np.array(losses), "eps": np.array(eps)}


def made(pairs, settings=None, entries=ENTRIES, note=""):
    """`pairs`: one (arrays of the first, arrays of the second) a seed."""
    stored = {
        ("fgsm", "mnist", run, seed): side
        for seed, pair in enumerate(pairs)
        for run, side in zip((SGD, DP), pair, strict=True)
        if side
    }
    display = settings or Display(shows="fragile_images", runs=entries)
    return show(Given(runs=runs(*entries), arrays=stored, note=note), display)


def mcnemar(b, c):
    """Twice the binomial tail at 1/2, at most 1."""
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    return min(1.0, 2 * tail)


def test_counts_and_p():
    page, data = made([(arrays(FIRST), arrays(SECOND))])
    row, shares = data.to_dict("records")
    assert [row[name] for name in ("images", "both", "only_first", "only_second", "neither")] == [12, 3, 2, 6, 1]
    assert row["p"] == pytest.approx(mcnemar(2, 6)) and row["p"] == pytest.approx(0.2890625)
    # In percent of the images that both have right; the others do not count.
    cells = {name: float(cell) for name, cell in zip(COUNTS, (25.0, 100 / 6, 50.0, 100 / 12), strict=True)}
    assert shares["seed"] == "all" and {name: shares[name] for name in cells} == pytest.approx(cells)
    lost = np.full((1, len(FIRST)), np.nan)
    lost[0, :12] = 100.0 * (np.arange(12) < 3)
    ends = shares["both"], shares["both_low"], shares["both_high"]
    assert ends == pytest.approx(mean_interval(lost, within=(0, 100)))
    text = {name: interval(*(shares[name + end] for end in ("", "_low", "_high")), digits=1) for name in cells}
    assert f"<th>SGD: lost</th><td>{text['only_first']}</td><td>{text['both']}</td>" in page
    assert f"<th>SGD: kept</th><td>{text['neither']}</td><td>{text['only_second']}</td>" in page
    assert "% [95 %, images only]" in page and text["both"].startswith("25.0 [")
    assert "<th>DP-SGD σ = 1.3, C = 1: kept</th><th>DP-SGD σ = 1.3, C = 1: lost</th>" in page
    assert "p: 0.29" in page


def test_images_are_matched_by_their_place_in_the_test_set():
    turned = arrays(SECOND)
    order = np.arange(len(SECOND))[::-1]
    turned = turned | {name: turned[name][..., order] for name in ("predicted", "label", "index")}
    one, other = made([(arrays(FIRST), arrays(SECOND))])[1], made([(arrays(FIRST), turned)])[1]
    assert one.equals(other)
    # Two images that only one of them has measured do not count.
    part = {name: turned[name][..., 2:] for name in ("predicted", "label", "index")}
    assert made([(arrays(FIRST), turned | part)])[1].loc[0, "images"] == 12
    assert made([(arrays(FIRST), turned | {k: turned[k][..., :-3] for k in part})])[1].loc[0, "both"] == 0


def test_the_worst_case_over_losses_and_a_single_one():
    several = [(arrays(FIRST, losses=("ce", "margin")), arrays(SECOND, losses=("ce", "margin")))]
    worst = made(several)[1]
    ce = made(several, Display(shows="fragile_images", runs=ENTRIES, loss="ce"))[1]
    margin = made(several, Display(shows="fragile_images", runs=ENTRIES, loss="margin"))[1]
    assert worst.equals(margin) and worst.loc[0, "both"] == 3
    assert ce.loc[0, ["both", "only_first", "only_second", "neither"]].tolist() == [0, 0, 0, 12]
    assert ce.loc[0, "p"] == 1


def test_seeds_are_compared_each_by_itself():
    page, data = made([(arrays(FIRST), arrays(SECOND)), (arrays(FIRST), arrays(FIRST))])
    assert list(data["seed"]) == [0, 1, "all"] and list(data["both"])[:2] == [3, 6]
    assert list(data["p"])[:2] == [0.2890625, 1.0] and "% [95 %]" in page
    assert "p: 0.29, 1." in page and "means over 2 seeds" in page


def test_models_without_a_common_seed_are_said_so():
    page, data = made([(arrays(FIRST), None), (None, arrays(SECOND))])
    assert "no seed in common" in page and data.empty and list(data.columns)[:2] == ["first", "second"]


def test_labels_and_the_note_are_escaped():
    entries = ["sgd", {"sigma": 1.3, "clip": 1.0, "label": "<b>mine</b>"}]
    page, _ = made([(arrays(FIRST), arrays(SECOND))], entries=entries, note="a & b")
    assert "<b>" not in page and "&lt;b&gt;mine" in page and "a &amp; b" in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"eps": 0.2}, r"eps: 0.2 is not among datasets.mnist.metrics.fgsm.eps \(0, 0.1\)"),
        ({"eps": 0.0}, "eps: must be above 0"),
        ({"loss": "margin"}, r"loss: margin is not among datasets.mnist.metrics.fgsm.losses \(ce\)"),
    ],
)
def test_what_is_not_measured_is_refused(more, message):
    measured = {"fgsm": SimpleNamespace(eps=[0.0, 0.1], losses=["ce"])}
    with pytest.raises(PydanticCustomError, match=message):
        check(Display(shows="fragile_images", runs=ENTRIES, **more), list(runs(*ENTRIES)), measured)
    check(Display(shows="fragile_images", runs=ENTRIES), list(runs(*ENTRIES)), measured)


def test_a_grid_without_0_and_a_single_run_are_refused():
    display, two = Display(shows="fragile_images", runs=ENTRIES), list(runs(*ENTRIES))
    with pytest.raises(PydanticCustomError, match="eps: 0 is not among"):
        check(display, two, {"fgsm": SimpleNamespace(eps=[0.1], losses=["ce"])})
    with pytest.raises(PydanticCustomError, match="runs: 1 model"):
        check(display, two[:1], {"fgsm": SimpleNamespace(eps=[0.0, 0.1], losses=["ce"])})
