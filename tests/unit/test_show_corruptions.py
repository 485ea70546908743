"""Table 2 from made-up records."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from makers import runs

from dprobust import corruptions
from dprobust.metrics.corruptions.display import Display
from dprobust.metrics.corruptions.show import OFFICIAL, show
from dprobust.showing import Given
from dprobust.statistics import mean_interval

DP = "dpsgd_sigma=1.3_clip=1.0"
SGD_DP = ["sgd", {"sigma": 1.3, "clip": 1.0}]
HEAD = "corruption: accuracy in % [95 %]"
SETS = ("identity", "fog", "gaussian_noise", "zoom_blur")


def records(names=("sgd", DP), sets=SETS, seeds=(0, 1)):
    return pd.DataFrame(
        {
            "dataset": "mnist",
            "run": run,
            "seed": seed,
            "metric": "accuracy",
            "corruption": name,
            "source": "mnist" if name == "identity" else "generated, seed 0",
            "n": 100,
            "value": 0.9 - 0.1 * i - 0.01 * j - (0.02 + 0.04 * i) * seed,
        }
        for i, run in enumerate(names)
        for j, name in enumerate(sets)
        for seed in seeds
    )


def arrays(frame):
    """Of 100 images the first so many are right as the records say."""
    kept = {}
    for (run, seed), group in frame.groupby(["run", "seed"], sort=False):
        right = np.arange(100) < np.round(100 * group["value"].to_numpy())[:, None]
        kept["corruptions", "mnist", run, seed] = {
            "corruption": group["corruption"].to_numpy(str),
            "predicted": np.where(right, 3, 4).astype(np.uint8),
            "label": np.full(100, 3, np.uint8),
        }
    return kept


def made(entries=SGD_DP, paper=None, **more):
    frame = records(**more)
    given = Given(runs=runs(*entries), records={"corruptions": frame}, arrays=arrays(frame), paper=paper)
    return show(given, Display(shows="corruptions", runs=entries, paper=None if paper is None else "t.csv"))


def without_intervals(texts):
    """Cells without what stands in square brackets."""
    return [re.sub(r" \[[^]]*\]", "", text) for text in texts]


@pytest.fixture
def paper():
    return pd.read_csv(ROOT / "workflow/paper/table2.csv")


def test_numbers(paper):
    data, _ = made(paper=paper)
    rows = data.set_index(["corruption", "run"])
    fog = 100.0 * np.array([np.arange(100) < right for right in (89, 87)])
    private = 100.0 * np.array([np.arange(100) < right for right in (79, 73)])
    assert tuple(rows.loc[("fog", "sgd"), ["mean", "seeds"]]) == pytest.approx((88, 2))
    assert tuple(rows.loc[("fog", "sgd"), ["mean", "low", "high"]]) == pytest.approx(
        mean_interval(fog, within=(0, 100))
    )
    assert rows.loc[("fog", "sgd"), "source"] == "generated, seed 0"
    # Paired by seed and image: 10 and 14 points.
    gap = tuple(rows.loc[("fog", f"sgd - {DP}"), ["mean", "low", "high"]])
    assert gap == pytest.approx(mean_interval(fog - private)) and gap[0] == pytest.approx(12)
    # Without the clean set: 88, 87, 86.
    average = rows.loc[("average of 3", "sgd")]
    parts = [100.0 * np.array([np.arange(100) < right - j for right in (89, 87)]) for j in range(3)]
    assert tuple(average[["mean", "low", "high"]]) == pytest.approx(mean_interval(np.mean(parts, axis=0)))
    assert average["mean"] == pytest.approx(87)


def test_printed_misprinted_and_computed_values_are_told_apart(paper):
    data, table = made(paper=paper)
    cells = table.set_index(HEAD).apply(without_intervals)
    assert cells.loc["gaussian_noise", "SGD"] == "87.00 (88.05*)"
    assert cells.loc["gaussian_noise", "difference"] == "12.00 (13.33)"
    assert cells.loc["zoom_blur", "difference"] == "12.00 (6.55*)"
    assert cells.loc["zoom_blur", "SGD"] == "86.00 (98.02)"
    # The average of our three sets is not printed; with a misprint among them it is not computed either.
    assert cells.loc["average of 3", "SGD"] == "87.00" and cells.loc["average of 3", "difference"] == "12.00"
    assert cells.loc["average of 3", "σ = 1.3, C = 1"] == f"75.00 (= {(27.02 + 81.21 + 91.41) / 3:.2f})"
    origins = data.set_index(["corruption", "run"])["paper_is"]
    assert origins["gaussian_noise", "sgd"] == "misprint" and origins["fog", "sgd"] == "printed"
    assert origins["average of 3", DP] == "computed" and origins["average of 3", "sgd"] == ""


def test_a_difference_that_is_not_printed_is_computed_and_marked():
    stated = pd.DataFrame({"corruption": ["fog", "zoom_blur"], "sgd": [91.59, 98.02], DP: [27.02, 91.41]})
    _, table = made(paper=stated)
    told = ["12.00", "12.00 (= 64.57)", "12.00", "12.00 (= 6.61)", "12.00"]
    assert without_intervals(table["difference"]) == told


def test_the_papers_differences_are_those_of_its_columns_but_for_what_is_marked(paper):
    gap = (paper["sgd"] - paper[DP] - paper[f"sgd - {DP}"]).abs() > 0.006
    assert set(paper[gap]["corruption"]) == {"gaussian_noise", "zoom_blur"} == set(paper.dropna()["corruption"])
    parts, printed = paper[1:-1], paper.iloc[-1]
    corrected = parts["sgd"].where(parts["corruption"] != "gaussian_noise", 94.54).mean()
    assert corrected == pytest.approx(printed["sgd"], abs=0.006)
    assert parts[DP].mean() == pytest.approx(printed[DP], abs=0.011)


def test_without_a_paper_only_ours_stands_in_the_cells():
    _, table = made()
    assert list(table.columns) == [HEAD, "SGD", "σ = 1.3, C = 1", "difference"]
    assert without_intervals(table.iloc[1]) == ["fog", "88.00", "76.00", "12.00"]
    _, alone = made(seeds=(0,))
    assert alone.columns[0] == "corruption: accuracy in % [95 %, images only]"


def test_one_run_has_no_difference():
    data, table = made(["sgd"], names=("sgd",))
    assert list(table.columns) == [HEAD, "SGD"] and len(data) == 5


@pytest.mark.parametrize(
    ("entry", "titles"),
    [
        (
            {"sigma": 1.3, "clip": 0.5, "noise": ["sigma*clip", "sigma"]},
            ["σ = 1.3, C = 0.5", "DP-SGD σ = 1.3, C = 0.5, noise σ"],
        ),
        ({"sigma": 1.3, "clip": 1.0, "lr": [0.05, 0.1]}, ["σ = 1.3, C = 1", "DP-SGD σ = 1.3, C = 1, lr = 0.1"]),
        (
            {"sigma": 1.3, "clip": 1.0, "lr": [0.2, 0.1]},
            ["DP-SGD σ = 1.3, C = 1, lr = 0.2", "DP-SGD σ = 1.3, C = 1, lr = 0.1"],
        ),
        (
            {"sigma": [1.3, 2.0], "clip": 1.0, "label": "same"},
            ["same, σ = 1.3", "same, σ = 2"],
        ),
        ({"algorithm": "sgd", "lr": [0.05, 0.1]}, ["SGD", "SGD, lr = 0.1"]),
    ],
)
def test_runs_that_differ_in_one_thing_each_have_their_column(entry, titles):
    one, other = (run.name for run in runs(entry))
    data, table = made([entry], names=(one, other))
    assert list(table.columns) == [HEAD, *titles, "difference"]
    assert without_intervals(table.iloc[0, 1:]) == ["89.00", "77.00", "12.00"]
    assert set(data["run"]) == {one, other, f"{one} - {other}"}


def test_the_official_fifteen_have_their_average():
    assert OFFICIAL == corruptions.OFFICIAL
    sets = ("identity", *corruptions.NAMES)
    _, table = made(sets=sets)
    assert list(table[HEAD][-2:]) == ["average of 31", "average of the official 15"]
    assert without_intervals(table["SGD"])[-1] == f"{100 * (0.89 - 0.01 * 8):.2f}"
