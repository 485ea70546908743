"""Table 1 from made-up records."""

from types import SimpleNamespace

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
    made = []
    for run, level in zip(names, (0.9, 0.8, 0.7), strict=False):
        for loss, worse in (("ce", 0.0), ("margin", 0.05), ("ce_stable", 0.5), ("worst", 0.07)):
            for seed in seeds:
                for eps, steps in ((0.0, 0), (0.1, 30), (0.1, 40)):
                    value = level - eps - worse - 0.02 * seed - (0.04 * seed if run != "sgd" else 0)
                    about = {"run": run, "seed": seed, "loss": loss, "eps": eps, "steps": steps, "n": 100}
                    more = {"metric": "accuracy", "alpha": 0.01, "random_start": False, "restarts": 1}
                    made.append(about | more | {"value": value})
    return pd.DataFrame(made)


def made(frame, entries=SGD_DP, stated=PAPER, **more):
    given = Given(runs=runs(*entries), records={"pgd": frame}, paper=stated)
    return show(given, display(entries, **more))


def test_numbers_in_percent_with_the_papers_beside_the_first_loss():
    data, _ = made(records())
    assert len(data) == 3 * 3 * 3 and set(data["loss"]) == {"ce", "margin", "worst"}
    rows = data.set_index(["loss", "eps", "steps", "run"]).sort_index()
    sgd, gap = rows.loc[("ce", 0.1, 40, "sgd")], rows.loc[("ce", 0.1, 40, f"sgd - {DP}")]
    assert tuple(sgd[["mean", "min", "max", "paper"]]) == pytest.approx((79, 78, 80, 80.44))
    # The difference is taken seed by seed: 10 and 14 points.
    assert tuple(gap[["mean", "min", "max", "paper"]]) == pytest.approx((12, 10, 14, 19.55))
    assert gap["std"] == pytest.approx(8**0.5) and gap["seeds"] == 2
    assert rows.loc[["margin", "worst"], "paper"].isna().all() and pd.isna(rows.loc[("ce", 0.1, 30, "sgd"), "paper"])
    assert rows.loc[("worst", 0.1, 40, "sgd"), "mean"] == pytest.approx(72)


def test_printed_and_computed_values_of_the_paper_are_told_apart():
    data, table = made(records())
    rows = data.set_index(["loss", "eps", "steps", "run"]).sort_index()
    assert rows.loc[("ce", 0.0, 0, f"sgd - {DP}"), "paper_is"] == "computed"
    assert rows.loc[("ce", 0.1, 40, f"sgd - {DP}"), "paper_is"] == "printed"
    assert list(table["difference", "paper"]) == ["[2.61]", "", "(19.55)"]
    assert list(table["SGD", "paper"]) == ["(99.14)", "", "(80.44)"]


def test_the_table_to_read():
    _, table = made(records())
    assert list(table.columns.get_level_values(0).unique()) == ["", "SGD", "DP-SGD σ = 1.3, C = 1", "difference"]
    assert list(table["SGD"]) == ["paper", "cross-entropy", "margin loss", "worst case"]
    assert list(table["SGD", "cross-entropy"]) == ["89.00 ± 1.41", "79.00 ± 1.41", "79.00 ± 1.41"]
    html, latex = rendering.html(table), rendering.latex(table, "Caption", "tab:x")
    assert 'colspan="4"' in html and "nan" not in html.lower()
    assert r"\multicolumn{4}{c}{SGD}" in latex and r"$\pm$" in latex and r"\toprule" in latex
    assert "nan" not in latex.lower() and latex.isascii()


def test_one_seed_one_run_and_no_paper():
    data, table = made(records((0,), ("sgd",)), ["sgd"], None, losses=["margin"], paper=None)
    assert list(table["SGD"]) == ["margin loss"] and list(table["SGD", "margin loss"]) == ["85.00", "75.00", "75.00"]
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
    frame = records(names=("sgd", "weights=mine"))
    frame = frame[(frame["run"] == "sgd") | (frame["seed"] == 0)]
    data, table = made(frame, entries)
    assert list(table["mine", "cross-entropy"]) == ["80.00", "70.00", "70.00"]
    # Not seed by seed: the difference of the means, 79 - 70.
    assert list(table["difference", "cross-entropy"]) == ["9.00", "9.00", "9.00"]


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
