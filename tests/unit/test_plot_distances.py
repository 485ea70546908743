"""Figs 5a and 5b from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest

from dprobust.plots import distances, style
from dprobust.study import Run

SGD, DP = Run(), Run(1.3, 1.0)


def settings(**changes):
    return {"title": "T", "norm": "linf", "paper_means": [], "paper_change": None} | changes


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
                    }
                )
    return pd.DataFrame(made)


def number(data, run, variant, statistic, column="mean"):
    found = data[(data["run"] == run.name) & (data["variant"] == variant) & (data["statistic"] == statistic)]
    return found[column].item()


def test_numbers_are_those_of_each_definition(rows):
    _, data = distances.draw(rows, [SGD, DP], settings(), {})
    means = {"absolute": (2.5, 3.5), "correct": (2, 3), "signed": (0.5, 1), "deepfool": (3, 5)}
    for variant, (first, second) in means.items():
        assert number(data, SGD, variant, "mean") == pytest.approx((first + second) / 2)
        assert number(data, SGD, variant, "mean", "min") == first and number(data, SGD, variant, "mean", "seeds") == 2
        assert number(data, DP, variant, "change_of_mean") == pytest.approx(-0.5)
        assert number(data, DP, variant, "change_of_median") == pytest.approx(-0.5)
    assert number(data, SGD, "correct", "images") == 3 and number(data, SGD, "deepfool", "images") == 2
    assert number(data, SGD, "absolute", "median", "max") == 3.5
    assert not len(data[(data["run"] == "sgd") & data["statistic"].str.startswith("change")])


def test_histograms_share_bins_and_sum_to_one(rows):
    figure, data = distances.draw(rows, [SGD, DP], settings(), {})
    shares = data[data["statistic"] == "share"]
    for _, group in shares.groupby("run"):
        assert len(group) == distances.BINS and group["mean"].sum() == pytest.approx(1)
        assert group["low"].iloc[0] == 0 and group["high"].iloc[-1] == 5
    upper, lower = figure.axes
    drawn = [patch.get_data() for patch in upper.patches]
    assert len(drawn) == 6  # fill, outline and band over seeds of each run
    np.testing.assert_allclose(drawn[0].values, shares.loc[shares["run"] == "sgd", "mean"])
    lines = [line.get_xdata()[0] for line in upper.get_lines()]
    assert lines == pytest.approx([3.0, 1.5])


def test_the_papers_means_stand_beside_ours(rows):
    figure, data = distances.draw(rows, [SGD, DP], settings(paper_means=[0.154, 0.131]), {DP.name: 1.89}, "demo")
    upper, lower = figure.axes
    marks = [line.get_xdata()[0] for line in lower.get_lines() if line.get_marker() == style.PAPER["marker"]]
    assert marks == [0.154, 0.131]
    assert number(data, DP, "paper", "change_of_mean") == pytest.approx(-0.149, abs=5e-4)
    texts = [text.get_text() for text in lower.texts]
    assert texts[:6] == ["SGD", "DP-SGD", "change", "0.154", "0.131", "−14.9%"]
    assert "3.000" in texts and "−50.0%" in texts
    labels = [text.get_text() for text in lower.get_yticklabels()]
    assert labels[0] == "stated by the paper" and labels[-1] == "DeepFool, 2 images"
    assert upper.get_title("left") == "T" and upper.get_title("right") == "demo"


def test_a_signed_mean_below_zero_is_in_sight_and_has_no_change(rows):
    rows["linf_signed"] -= 10
    figure, data = distances.draw(rows, [SGD, DP], settings(), {})
    assert figure.axes[1].get_xlim()[0] < number(data, DP, "signed", "mean") < 0
    assert not len(data[(data["variant"] == "signed") & data["statistic"].str.startswith("change")])
    assert "nan" not in " ".join(text.get_text() for text in figure.axes[1].texts)


def test_other_norm_no_deepfool_one_run_one_seed(rows):
    figure, data = distances.draw(rows[(rows["seed"] == 0)], [SGD], settings(norm="l2"), {})
    assert number(data, SGD, "absolute", "mean") == 25
    assert "deepfool" not in set(data["variant"]) and not figure.axes[1].texts


def test_infinite_distances_are_left_out(rows):
    rows.loc[0, ["linf", "linf_signed", "deepfool_linf"]] = np.inf
    _, data = distances.draw(rows, [SGD, DP], settings(), {})
    assert number(data, SGD, "absolute", "images", "min") == 3 and number(data, SGD, "absolute", "mean", "min") == 3
    assert number(data, SGD, "deepfool", "images", "min") == 1
