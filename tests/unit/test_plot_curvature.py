"""Fig 5c from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest

from dprobust.plots import curvature, style
from dprobust.study import Run

SGD, DP = Run(), Run(1.3, 1.0)
IMAGES, RANKS, RANK, H = 11, 6, 4, (3.0, 0.1)


def settings(**changes):
    return {"title": "T", "paper_ratio": 100} | changes


def record(factor=10.0, rank=RANK):
    """Image i has the values 1 to 11 divided by 10^rank; DP-SGD's eigenvalues are `factor` times as large."""
    made = []
    for run, times in ((SGD, 1.0), (DP, factor)):
        for i in range(IMAGES):
            about = {"run": run.name, "seed": 0, "index": 7 * i}
            for k in range(1, RANKS + 1):
                value = times * (i + 1) / 10**k if k <= rank else 0.0
                made.append(about | {"metric": "eigenvalue", "rank": k, "value": value})
            made.append(about | {"metric": "confidence_free", "value": i + 1.0})
            made += [about | {"metric": "finite_difference", "h": h, "value": times * h * (i + 1)} for h in H]
    return pd.DataFrame(made)


def drawn(axes, style):
    return [line for line in axes.get_lines() if line.get_linestyle() == style]


def test_numbers():
    _, data = curvature.draw(record(), [SGD, DP], settings(), {})
    assert len(data) == 2 * (RANKS + 1 + len(H)) and set(data["n"]) == {IMAGES}
    first = data[(data["run"] == DP.name) & (data["rank"] == 1)].iloc[0]
    assert first[["mean", "median", "p10", "p90"]].tolist() == pytest.approx([6, 6, 2, 10])
    assert first["ratio_of_means"] == pytest.approx(10) and first["paper_ratio"] == 100
    free = data[(data["run"] == DP.name) & (data["metric"] == "confidence_free")].iloc[0]
    assert free["ratio_of_medians"] == 1
    assert data.loc[data["run"] == "sgd", ["ratio_of_means", "ratio_of_medians", "paper_ratio"]].isna().all(axis=None)
    assert data.loc[data["rank"] > RANK, ["ratio_of_means", "ratio_of_medians"]].isna().all(axis=None)


def test_profile_ends_where_the_eigenvalues_are_zero():
    figure, _ = curvature.draw(record(), [SGD, DP], settings(), {DP.name: 1.89}, "demo")
    axes = figure.axes[0]
    mean, other = (line for line in axes.get_lines() if line.get_marker() == "o")
    np.testing.assert_allclose(mean.get_ydata(), [*(6 / 10**k for k in range(1, RANK + 1)), np.nan, np.nan])
    np.testing.assert_allclose(other.get_ydata()[:RANK], 10 * mean.get_ydata()[:RANK])
    (cross,) = (line for line in axes.get_lines() if line.get_marker() == style.PAPER["marker"])
    assert (cross.get_xdata(), cross.get_ydata()) == pytest.approx((1, 60))
    assert axes.get_yscale() == "log" and "rank at most 4" in axes.texts[0].get_text()
    (shaded,) = axes.patches
    assert shaded.get_x() == RANK + 0.5
    assert axes.texts[1].get_text() == "λ₁: mean × 10, median × 10"
    assert axes.get_title("left") == "(a) T" and axes.get_title("right") == "demo"


def test_nothing_is_shaded_where_no_eigenvalue_is_zero():
    figure, _ = curvature.draw(record(rank=RANKS), [SGD, DP], settings(paper_ratio=None), {})
    assert not figure.axes[0].patches and len(figure.axes[0].texts) == 1
    assert not [line for line in figure.axes[0].get_lines() if line.get_marker() == style.PAPER["marker"]]


def test_every_image_is_a_point_in_the_strip():
    figure, _ = curvature.draw(record(), [SGD, DP], settings(), {})
    strips = [line for line in figure.axes[1].get_lines() if line.get_marker() == "."]
    for strip in strips:
        assert sorted(strip.get_ydata()) == list(range(1, IMAGES + 1))
    assert len(strips) == 2 and "median × 1" in [text.get_text() for text in figure.axes[1].texts]


def test_finite_differences_in_order_of_h():
    figure, _ = curvature.draw(record(), [SGD, DP], settings(), {})
    axes = figure.axes[2]
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [0.1, 3.0])
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.6, 18.0])
    assert axes.texts[0].get_text() == "median × 10 (h 0.1), × 10 (h 3)"


def test_seeds_are_pooled():
    one, two = record(), record().assign(seed=1, value=lambda table: 3 * table["value"])
    _, data = curvature.draw(pd.concat([one, two]), [SGD, DP], settings(), {})
    assert set(data["n"]) == {2 * IMAGES} and data["mean"].iloc[0] == pytest.approx(1.2)


def test_one_model_and_a_sweep():
    figure, data = curvature.draw(record(), [SGD], settings(paper_ratio=None), {})
    assert set(data["run"]) == {"sgd"} and not figure.axes[1].texts
    sweep = pd.concat([record(), record().assign(run=Run(2.0, 1.0).name)])
    figure, _ = curvature.draw(sweep, [SGD, DP, Run(2.0, 1.0)], settings(), {})
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["SGD", "σ = 1.3\nC = 1", "σ = 2\nC = 1"]
