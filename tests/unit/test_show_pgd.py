"""Table 1 from made-up records."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from dprobust import rendering
from dprobust.errors import UserError
from dprobust.metrics.pgd.display import Display, check
from dprobust.metrics.pgd.show import show
from dprobust.showing import Given
from dprobust.statistics import mean_interval

DP, OTHER = "dpsgd_sigma=1.3_clip=1.0", "dpsgd_sigma=2.0_clip=1.0"
SGD_DP = ["sgd", {"sigma": 1.3, "clip": 1.0}]
PAPER = pd.DataFrame(
    {
        "eps/steps": ["0/0", "0.1/40", "9/9"],
        "sgd": [99.14, 80.44, None],
        DP: [96.53, 60.89, 1.0],
        f"sgd - {DP}": [None, 19.55, None],
        "misprint": [None, None, None],
    }
)


def display(entries=SGD_DP, **more):
    return Display(shows="pgd", runs=entries, **{"losses": ["ce", "margin", "worst"], "paper": "t.csv"} | more)


def records(seeds=(0, 1), names=("sgd", DP)):
    """Of 100 images the first so many are right; under margin 5 fewer, under ce_stable the first 2 are not."""
    made = {}
    for run, level in zip(names, (90, 80, 70), strict=False):
        for seed in seeds:
            left = level - 2 * seed - (4 * seed if run != "sgd" else 0)
            place = np.arange(100)
            clean = place < left
            attacked = [place < left - 10, place < left - 15, (place < left - 10) & (place > 1)]
            made["pgd", "mnist", run, seed] = {
                "loss": np.array(["ce", "margin", "ce_stable"]),
                "eps": np.array([0.1]),
                "steps": np.array([30, 40]),
                "label": np.zeros(100, np.uint8),
                "clean": (~clean).astype(np.uint8),
                "predicted": np.array([[[~right, ~right]] for right in attacked]).astype(np.uint8),
            }
    return made


def made(arrays, entries=SGD_DP, stated=PAPER, **more):
    return show(Given(runs=runs(*entries), arrays=arrays, paper=stated), display(entries, **more))


def test_numbers_in_percent_with_the_papers_beside_the_first_loss():
    data, _ = made(records())
    assert len(data) == 3 * 3 * 3 and set(data["loss"]) == {"ce", "margin", "worst"}
    rows = data.set_index(["loss", "eps", "steps", "run"]).sort_index()
    sgd, gap = rows.loc[("ce", 0.1, 40, "sgd")], rows.loc[("ce", 0.1, 40, f"sgd - {DP}")]
    right = 100.0 * np.array([np.arange(100) < left for left in (80, 78)])
    private = 100.0 * np.array([np.arange(100) < left for left in (70, 64)])
    assert tuple(sgd[["mean", "low", "high", "paper"]]) == pytest.approx((79, *mean_interval(right)[1:], 80.44))
    # Paired by seed and image: 10 and 14 points.
    assert tuple(gap[["mean", "low", "high"]]) == pytest.approx(mean_interval(right - private))
    assert tuple(gap[["mean", "paper", "seeds"]]) == pytest.approx((12, 19.55, 2))
    assert rows.loc[["margin", "worst"], "paper"].isna().all() and pd.isna(rows.loc[("ce", 0.1, 30, "sgd"), "paper"])
    assert rows.loc[("margin", 0.1, 40, "sgd"), "mean"] == pytest.approx(74)
    assert rows.loc[("worst", 0.1, 40, "sgd"), "mean"] == pytest.approx(72)
    assert rows.loc[("worst", 0.0, 0, "sgd"), "mean"] == pytest.approx(89)


def test_printed_and_computed_values_of_the_paper_are_told_apart():
    data, table = made(records())
    rows = data.set_index(["loss", "eps", "steps", "run"]).sort_index()
    assert rows.loc[("ce", 0.0, 0, f"sgd - {DP}"), "paper_is"] == "computed"
    assert rows.loc[("ce", 0.1, 40, f"sgd - {DP}"), "paper_is"] == "printed"
    assert list(table["difference", "paper"]) == ["(= 2.61)", "", "(19.55)"]
    assert list(table["SGD", "paper"]) == ["(99.14)", "", "(80.44)"]


def test_the_table_to_read():
    _, table = made(records())
    assert list(table.columns.get_level_values(0).unique()) == ["", "SGD", "DP-SGD σ = 1.3, C = 1", "difference"]
    heads = ["cross-entropy [95 %]", "margin loss [95 %]", "worst case [95 %]"]
    assert list(table["SGD"]) == ["paper", *heads]
    value, low, high = mean_interval(100.0 * np.array([np.arange(100) < left for left in (80, 78)]))
    assert table["SGD", "cross-entropy [95 %]"].iloc[1] == f"{value:.2f} [{low:.2f}, {high:.2f}]"
    html, latex = rendering.html(table), rendering.latex(table, "Caption", "tab:x")
    assert 'colspan="4"' in html and "nan" not in html.lower()
    assert r"\multicolumn{4}{c}{SGD}" in latex and r"95 \%" in latex and r"\toprule" in latex
    assert "nan" not in latex.lower() and latex.isascii()


def test_one_seed_one_run_and_no_paper():
    data, table = made(records((0,), ("sgd",)), ["sgd"], None, losses=["margin"], paper=None)
    (head,) = table["SGD"]
    assert head == "margin loss [95 %, images only]"
    low, high = data.set_index(["loss", "steps"]).loc[("margin", 40), ["low", "high"]]
    reach = (high - low) / 2 / (100 * (0.75 * 0.25 / 99) ** 0.5)  # in standard errors: Student's quantile
    assert 1.96 < reach < 2.05 and table["SGD", head].iloc[1] == f"75.00 [{low:.2f}, {high:.2f}]"
    assert data["paper"].isna().all()


def test_several_private_runs_each_have_their_difference():
    _, table = made(records(names=("sgd", DP, OTHER)), ["sgd", {"sigma": [1.3, 2.0], "clip": 1.0}])
    assert "SGD − DP-SGD σ = 2, C = 1" in table.columns.get_level_values(0)
    assert "paper" not in table["SGD − DP-SGD σ = 2, C = 1"]


@pytest.mark.parametrize(
    "change", [{"noise": ["sigma*clip", "sigma"], "clip": 0.5}, {"lr": [0.05, 0.1]}, {"epochs": [50, 60]}]
)
def test_runs_that_differ_in_one_thing_each_have_their_columns(change):
    entry = {"sigma": 1.3, "clip": 1.0} | change
    one, other = (run.name for run in runs(entry))
    data, table = made(records(names=(one, other)), [entry], None, paper=None)
    headings = table.columns.get_level_values(0).unique()
    assert len(headings) == 4 and table.shape[1] == 2 + 3 * 3
    assert set(data["run"]) == {one, other, f"{one} - {other}"}


def test_given_weights_of_one_seed_beside_runs_of_two():
    entries = ["sgd", {"weights": "a.pt", "name": "mine"}]
    arrays = {key: of for key, of in records(names=("sgd", "weights=mine")).items() if key[2:] != ("weights=mine", 1)}
    data, table = made(arrays, entries)
    assert [text.split()[0] for text in table["mine", "cross-entropy [95 %]"]] == ["80.00", "70.00", "70.00"]
    # The network stands for itself against each seed: 79 - 70.
    assert [text.split()[0] for text in table["difference", "cross-entropy [95 %]"]] == ["9.00", "9.00", "9.00"]
    assert data.set_index("run").loc["weights=mine", "seeds"].unique().tolist() == [1]


def test_flagged_runs_are_marked():
    given = Given(runs=runs(*SGD_DP), arrays=records(), flags={"flagged by a check": {"sgd": "p = 1"}})
    _, table = show(given, display(paper=None))
    assert list(table.columns.get_level_values(0).unique()) == ["", "SGD †", "DP-SGD σ = 1.3, C = 1", "difference"]
    assert given.footnote == "† flagged by a check: SGD: p = 1"
    latex = rendering.latex(table, given.footnote, "tab:x")
    assert r"SGD $\dagger$" in latex and latex.isascii()


def test_a_paper_value_that_is_no_number_is_named():
    wrong = PAPER.astype({"sgd": object})
    wrong.loc[1, "sgd"] = "80,44"
    with pytest.raises(UserError, match=r"t.csv: '80,44' in row 0.1/40, column sgd, must be a number"):
        made(records(), stated=wrong)


@pytest.mark.parametrize(
    ("shown", "measured", "message"),
    [
        (["ce", "margin"], ["ce"], r"losses: margin is not among datasets.mnist.metrics.pgd.losses \(ce\)"),
        (["ce", "worst"], ["ce"], "losses: worst needs two or more"),
    ],
)
def test_losses_that_are_not_measured_are_refused(shown, measured, message):
    with pytest.raises(PydanticCustomError, match=message):
        check(display(losses=shown), [], {"pgd": SimpleNamespace(losses=measured)})
    check(display(losses=shown), [], {"pgd": SimpleNamespace(losses=["ce", "margin"])})


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValidationError, match="losses"):
        display(losses=["hinge"])
