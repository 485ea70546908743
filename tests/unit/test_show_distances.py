"""Figs 5a and 5b from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust import style
from dprobust.metrics.distances.display import Display, check
from dprobust.metrics.distances.show import BINS, show
from dprobust.showing import Given
from dprobust.statistics import Sample, estimate, mean_interval, ratio, same

DP_ENTRY = {"sigma": 1.3, "clip": 1.0}
BOTH = ["sgd", DP_ENTRY]
SGD, DP = runs(*BOTH)


def draw(rows, entries=BOTH, note="", **settings):
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=runs(*entries), arrays=arrays(rows), privacy=privacy, note=note)
    return show(given, Display(shows="distances", runs=entries, title="T", **settings))


def arrays(rows):
    """The arrays of made-up rows, one an image, run and seed."""
    kept = {}
    for (run, seed), of in rows.groupby(["run", "seed"], sort=False):
        kept["distances", "mnist", run, seed] = {
            "norm": np.array(["l2", "linf"]),
            "distance": of[["l2", "linf"]].to_numpy(np.float32).T,
            "signed": of[["l2_signed", "linf_signed"]].to_numpy(np.float32).T,
            "correct": of["correct"].to_numpy(),
            "index": of["index"].to_numpy(),
        }
        tried = of[of["deepfool_linf"].notna()]
        if len(tried) and of["with_deepfool"].all():
            deepfool = tried[["deepfool_l2", "deepfool_linf"]].to_numpy(np.float32).T
            kept["distances", "mnist", run, seed] |= {
                "deepfool_index": tried["index"].to_numpy(),
                "deepfool_distance": deepfool,
            }
    return kept


@pytest.fixture
def rows():
    """Four images a run and seed, the last misclassified, DeepFool on the first two."""
    made = []
    for run, factor in ((SGD, 1.0), (DP, 0.5)):
        for seed in (0, 1):
            for index, value in enumerate((1.0, 2.0, 3.0, 4.0)):
                linf = factor * (value + seed)
                made.append(
                    {
                        "run": run.name,
                        "seed": seed,
                        "index": index,
                        "linf": linf,
                        "linf_signed": linf if index < 3 else -linf,
                        "l2": 10 * linf,
                        "l2_signed": 10 * linf,
                        "correct": index < 3,
                        "deepfool_linf": 2 * linf if index < 2 else np.nan,
                        "deepfool_l2": np.nan,
                        "with_deepfool": True,
                    }
                )
    return pd.DataFrame(made)


def number(data, run, variant, statistic, column="mean"):
    found = data[(data["run"] == run.name) & (data["variant"] == variant) & (data["statistic"] == statistic)]
    return found[column].item()


def test_numbers_are_those_of_each_definition(rows):
    _, data = draw(rows)
    means = {"absolute": (2.5, 3.5), "correct": (2, 3), "signed": (0.5, 1), "deepfool": (3, 5)}
    for variant, (first, second) in means.items():
        assert number(data, SGD, variant, "mean") == pytest.approx((first + second) / 2)
        assert number(data, SGD, variant, "mean", "seeds") == 2
        assert number(data, DP, variant, "change_of_mean") == pytest.approx(-0.5)
        assert number(data, DP, variant, "change_of_median") == pytest.approx(-0.5)
    assert number(data, SGD, "correct", "images") == 3 and number(data, SGD, "deepfool", "images") == 2
    values = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]])
    correct = np.where(np.arange(4) < 3, values, np.nan)
    counted = {"absolute": values, "correct": correct, "signed": values * [1, 1, 1, -1]}
    for variant, of in counted.items():
        ends = [number(data, SGD, variant, "mean", end) for end in ("mean", "low", "high")]
        assert ends == pytest.approx(mean_interval(of))
    found = estimate(Sample((values,), same, "median"))
    ends = [number(data, SGD, "absolute", "median", end) for end in ("mean", "low", "high")]
    assert ends == pytest.approx([found.value, *found.interval()]) and found.value == 3
    both = estimate(Sample((correct, correct / 2), ratio, log=True))
    ends = [number(data, DP, "correct", "change_of_mean", end) + 1 for end in ("mean", "low", "high")]
    assert ends == pytest.approx([both.value, *both.interval()])
    assert not len(data[(data["run"] == "sgd") & data["statistic"].str.startswith("change")])


def test_histograms_share_bins_and_sum_to_one(rows):
    figure, data = draw(rows)
    shares = data[data["statistic"] == "share"]
    for _, group in shares.groupby("run"):
        assert len(group) == BINS and group["mean"].sum() == pytest.approx(1)
        assert group["bin_low"].iloc[0] == 0 and group["bin_high"].iloc[-1] == 5
        assert (group["low"] <= group["mean"]).all() and (group["high"] >= group["mean"]).all()
    # Of SGD's four distances one of each seed is between 2 and 2.1, another image's each: 2, and 2.
    one = shares[(shares["run"] == "sgd") & np.isclose(shares["bin_low"], 2)].iloc[0]
    inside = np.array([[0, 1, 0, 0], [1, 0, 0, 0]], float)
    assert tuple(one[["mean", "low", "high"]]) == pytest.approx(mean_interval(inside, within=(0, 1)))
    upper, lower = figure.axes
    drawn = [patch.get_data() for patch in upper.patches]
    assert len(drawn) == 6  # fill, outline and band of each run
    np.testing.assert_allclose(drawn[0].values, shares.loc[shares["run"] == "sgd", "mean"])
    lines = [line.get_xdata()[0] for line in upper.get_lines()]
    assert lines == pytest.approx([3.0, 1.5])


def test_the_papers_means_stand_beside_ours(rows):
    figure, data = draw(rows, note="demo", paper_means=[0.154, 0.131])
    upper, lower = figure.axes
    marks = [line.get_xdata()[0] for line in lower.get_lines() if line.get_marker() == style.PAPER["marker"]]
    assert marks == [0.154, 0.131]
    assert number(data, DP, "paper", "change_of_mean") == pytest.approx(-0.149, abs=5e-4)
    texts = [text.get_text() for text in lower.texts]
    assert texts[:6] == ["SGD", "DP-SGD", "change", "0.154", "0.131", "−14.9%"]
    assert "3.000" in texts and "−50.0%" in texts and "[−50%, −50%]" in texts  # each half of the other's
    labels = [text.get_text() for text in lower.get_yticklabels()]
    assert labels[0] == "stated by the paper" and labels[-1] == "DeepFool, 2 images"
    assert figure.get_suptitle() == "T" and figure.get_supxlabel() == "demo"


def test_a_signed_mean_below_zero_is_in_sight_and_has_no_change(rows):
    rows["linf_signed"] -= 10
    figure, data = draw(rows)
    assert figure.axes[1].get_xlim()[0] < number(data, DP, "signed", "mean") < 0
    assert not len(data[(data["variant"] == "signed") & data["statistic"].str.startswith("change")])
    assert "nan" not in " ".join(text.get_text() for text in figure.axes[1].texts)


def test_other_norm_no_deepfool_one_run_one_seed(rows):
    figure, data = draw(rows[rows["seed"] == 0].assign(with_deepfool=False), ["sgd"], norm="l2")
    assert number(data, SGD, "absolute", "mean") == 25
    assert "deepfool" not in set(data["variant"])
    assert [text.get_text() for text in figure.axes[1].texts] == ["SGD", "25.000", "20.000", "25.000"]


def test_infinite_distances_are_left_out_and_counted(rows):
    rows.loc[0, ["linf", "linf_signed", "deepfool_linf"]] = np.inf
    rows.loc[rows["run"] == DP.name, "deepfool_linf"] = rows["deepfool_linf"].where(rows["index"] != 1, np.inf)
    figure, data = draw(rows, note="demo")
    assert number(data, SGD, "absolute", "images") == 3.5 and number(data, SGD, "absolute", "mean") == (3 + 3.5) / 2
    assert number(data, SGD, "deepfool", "images") == 1.5 and number(data, SGD, "absolute", "infinite") == 0.5
    assert number(data, DP, "deepfool", "infinite") == 1 and number(data, DP, "absolute", "infinite") == 0
    note = " ".join(figure.get_supxlabel().split())
    assert note.startswith("demo; infinite distances (no boundary found), left out, all seeds: ")
    assert note.endswith("Eq. 4: 1 of SGD; DeepFool: 1 of SGD, 2 of DP-SGD")
    # What was left out was measured all the same.
    assert figure.axes[1].get_yticklabels()[-1].get_text() == "DeepFool, 2 images"


def test_without_infinite_distances_nothing_is_said_of_them(rows):
    figure, data = draw(rows, note="demo")
    assert figure.get_supxlabel() == "demo" and (data.loc[data["statistic"] == "infinite", "mean"] == 0).all()


def test_a_model_without_any_boundary(rows):
    """A network that is the same everywhere: no histogram, no mean, no change, but a count."""
    own = rows["run"] == "sgd"
    rows.loc[own, [column for column in rows if "l2" in column or "linf" in column]] = np.inf
    figure, data = draw(rows)
    assert number(data, SGD, "absolute", "infinite") == 4 and not (data["statistic"] == "change_of_mean").any()
    assert number(data, DP, "absolute", "mean") == 1.5 and "4 of" not in figure.get_supxlabel()
    assert "8 of SGD" in figure.get_supxlabel()


@pytest.mark.parametrize("sigmas", [[1.3, 2.0], [0.7, 1.0, 1.3, 1.5, 2.0, 3.0]])
def test_many_runs(rows, sigmas):
    entries = ["sgd", {"sigma": sigmas, "clip": 1.0}]
    shown = runs(*entries)
    one = rows[rows["run"] == DP.name]
    many = pd.concat([rows[rows["run"] == "sgd"], *(one.assign(run=run.name) for run in shown[1:])])
    figure, data = draw(many, entries)
    texts = [text.get_text() for text in figure.axes[1].texts]
    heights = {line.get_ydata()[0] for line in figure.axes[1].get_lines() if line.get_marker() == "o"}
    if len(shown) <= 3:
        assert texts[:3] == ["SGD", "σ = 1.3", "σ = 2"] and "change" not in texts
        assert len(heights) == 4
    else:  # numbers are in the CSV; each run has a line of its own within a row
        assert not texts and len(heights) == 4 * len(shown)
    assert len(data[data["statistic"] == "mean"]) == 4 * len(shown)


def test_what_the_paper_states_must_go_with_the_runs():
    with pytest.raises(PydanticCustomError, match="paper_change: needs two runs"):
        check(Display(shows="distances", runs=["sgd"], paper_change=-0.1), runs("sgd"), {})
    with pytest.raises(PydanticCustomError, match=r"paper_means: 2 values, but the figure has 1 run"):
        check(Display(shows="distances", runs=[DP_ENTRY], paper_means=[1.0, 2.0]), runs(DP_ENTRY), {})
    check(Display(shows="distances", runs=BOTH, paper_means=[1.0, 2.0], paper_change=-0.1), runs(*BOTH), {})
