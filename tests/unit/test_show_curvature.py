"""Fig 5c from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust import style
from dprobust.metrics.curvature.display import Display, check
from dprobust.metrics.curvature.show import _digits, show
from dprobust.showing import Given
from dprobust.statistics import Sample, estimate, ratio, same

DP_ENTRY = {"sigma": 1.3, "clip": 1.0}
BOTH = ["sgd", DP_ENTRY]
SGD, DP = runs(*BOTH)
SWEEP_ENTRIES = ["sgd", {"sigma": [1.3, 2.0], "clip": 1.0}]
SWEEP = runs(*SWEEP_ENTRIES)
IMAGES, RANKS, RANK, H = 11, 6, 4, (3.0, 0.1)


def draw(records, entries=BOTH, note="", **settings):
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=runs(*entries), arrays=arrays(records), privacy=privacy, note=note)
    return show(given, Display(shows="curvature", runs=entries, **{"title": "T", "paper_ratio": 100} | settings))


def arrays(records):
    """The arrays of rows, one an image, run, seed and quantity."""
    kept = {}
    for (run, seed), of in records.groupby(["run", "seed"], sort=False):

        def table(metric, column, of=of):
            return of[of["metric"] == metric].pivot(index=column, columns="index", values="value")

        free = of[of["metric"] == "confidence_free"].sort_values("index")["value"].to_numpy()
        differences = table("finite_difference", "h").loc[list(H)]
        kept["curvature", "mnist", run, seed] = {
            "eigenvalues": table("eigenvalue", "rank").to_numpy(),
            "confidence_free": free,
            "finite_difference": differences.to_numpy(),
            "h": np.array(H),
        }
    return kept


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
    _, data = draw(record())
    assert len(data) == 2 * (RANKS + 1 + len(H)) and set(data["n"]) == {IMAGES}
    first = data[(data["run"] == DP.name) & (data["rank"] == 1)].iloc[0]
    assert first[["mean", "median", "p10", "p90"]].tolist() == pytest.approx([6, 6, 2, 10])
    for name in ("mean", "median"):
        found = estimate(Sample((np.arange(1.0, 12)[None],), same, name, log=True))
        assert first[[f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(found.interval())
    assert first["ratio_of_means"] == pytest.approx(10) and first["paper_ratio"] == 100
    free = data[(data["run"] == DP.name) & (data["metric"] == "confidence_free")].iloc[0]
    assert free["ratio_of_medians"] == 1
    assert data.loc[data["run"] == "sgd", ["ratio_of_means", "ratio_of_medians", "paper_ratio"]].isna().all(axis=None)
    assert data.loc[data["rank"] > RANK, ["ratio_of_means", "ratio_of_medians"]].isna().all(axis=None)


def test_profile_ends_where_the_eigenvalues_are_zero():
    figure, _ = draw(record(), note="demo")
    axes = figure.axes[0]
    mean, other = (line for line in axes.get_lines() if line.get_marker() == "o")
    np.testing.assert_allclose(mean.get_ydata(), [*(6 / 10**k for k in range(1, RANK + 1)), np.nan, np.nan])
    np.testing.assert_allclose(other.get_ydata()[:RANK], 10 * mean.get_ydata()[:RANK])
    (cross,) = (line for line in axes.get_lines() if line.get_marker() == style.PAPER["marker"])
    assert (cross.get_xdata(), cross.get_ydata()) == pytest.approx((1, 60))
    assert axes.get_yscale() == "log" and "rank at most 4" in axes.texts[0].get_text()
    (shaded,) = axes.patches
    assert shaded.get_x() == RANK + 0.5
    assert axes.texts[1].get_text() == "λ₁: mean × 10 [10, 10], median × 10 [10, 10]"
    assert figure.get_suptitle() == "T" and figure.get_supxlabel() == "demo"


def test_nothing_is_shaded_where_no_eigenvalue_is_zero():
    figure, _ = draw(record(rank=RANKS), paper_ratio=None)
    assert not figure.axes[0].patches and len(figure.axes[0].texts) == 1
    assert not [line for line in figure.axes[0].get_lines() if line.get_marker() == style.PAPER["marker"]]


def test_every_image_is_a_point_in_the_strip():
    figure, _ = draw(record())
    strips = [line for line in figure.axes[1].get_lines() if line.get_marker() == "."]
    for strip in strips:
        assert sorted(strip.get_ydata()) == list(range(1, IMAGES + 1))
    assert len(strips) == 2 and "median × 1.0 [1.0, 1.0]" in [text.get_text() for text in figure.axes[1].texts]


def test_finite_differences_in_order_of_h():
    figure, _ = draw(record())
    axes = figure.axes[2]
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [0.1, 3.0])
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.6, 18.0])
    assert axes.texts[0].get_text() == "median × 10 [10, 10] (h 0.1),\n× 10 [10, 10] (h 3)"


def test_of_several_seeds_the_means_are_geometric_and_the_quantiles_pooled():
    one, two = record(), record().assign(seed=1, value=lambda table: 3 * table["value"])
    _, data = draw(pd.concat([one, two]))
    assert set(data["n"]) == {2 * IMAGES} and set(data["seeds"]) == {2}
    first, both = data.iloc[0], np.concatenate([np.arange(1.0, 12), 3 * np.arange(1.0, 12)]) / 10
    assert first["mean"] == pytest.approx((0.6 * 1.8) ** 0.5) and first["p90"] == pytest.approx(np.quantile(both, 0.9))


def test_one_model_and_a_sweep():
    figure, data = draw(record(), ["sgd"], paper_ratio=None)
    assert set(data["run"]) == {"sgd"} and not figure.axes[1].texts
    sweep = pd.concat([record(), record()[lambda table: table["run"] == DP.name].assign(run=SWEEP[2].name)])
    figure, _ = draw(sweep, SWEEP_ENTRIES)
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["SGD", "σ = 1.3", "σ = 2"]


def test_ratios_have_intervals_over_images_and_seeds():
    """The second model's images differ by factors 5 to 20: so may the ratio."""
    spread = record()
    own = (spread["run"] == DP.name) & (spread["metric"] == "eigenvalue")
    spread.loc[own, "value"] *= np.where(spread.loc[own, "index"] % 2 == 0, 0.5, 2.0)
    both = pd.concat([spread, spread.assign(seed=1, value=lambda table: 1.5 * table["value"])])
    figure, data = draw(both)
    arrays = {
        run.name: both[(both["run"] == run.name) & (both["rank"] == 1)].pivot(
            index="seed", columns="index", values="value"
        )
        for run in (SGD, DP)
    }
    found = estimate(Sample(tuple(arrays[run.name].to_numpy() for run in (SGD, DP)), ratio, log=True))
    low, high = found.interval()
    first = data[(data["run"] == DP.name) & (data["rank"] == 1)].iloc[0]
    assert first["ratio_of_means"] == found.value and high / low > 1.2
    assert first[["ratio_of_means_low", "ratio_of_means_high"]].tolist() == [low, high]
    text = figure.axes[0].texts[1].get_text()
    assert text.startswith(
        f"λ₁: mean × {_digits(first['ratio_of_means'])} [{_digits(low)}, {_digits(high)}], median × "
    )
    zero = data[(data["rank"] > RANK) & (data["run"] == DP.name)]
    assert len(zero) and zero[["ratio_of_means_low", "ratio_of_medians_high"]].isna().all(axis=None)
    assert any("95 % intervals" in text.get_text() for text in figure.legends[0].get_texts())


def test_intervals_are_printed_with_two_digits():
    found = [_digits(value) for value in (0.0342, 2.14, 6.0, 9.96, 26.3, 443.0, 12345.0, 1e-5, np.inf)]
    assert found == ["0.034", "2.1", "6.0", "10", "26", "440", "1.2e+04", "1.0e-05", "∞"]


def test_many_models_have_short_names_and_no_bands():
    entries = ["sgd", {"sigma": [0.7, 1.3, 2.0], "clip": [1.0, 3.0]}]
    made = record()
    one = made[made["run"] == DP.name]
    many = pd.concat([made[made["run"] == "sgd"], *(one.assign(run=run.name) for run in runs(*entries)[1:])])
    figure, _ = draw(many, entries)
    names = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert len(names) == 7 and names[:3] == ["SGD", "σ = 0.7, C = 1", "σ = 0.7, C = 3"]
    told = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert not figure.axes[0].collections and "10 and 90 %" not in told and "of both" not in told


def test_a_stated_ratio_needs_two_runs():
    display = Display(shows="curvature", runs=[DP_ENTRY], paper_ratio=100.0)
    with pytest.raises(PydanticCustomError, match="paper_ratio: needs two runs, the figure has 1"):
        check(display, runs(DP_ENTRY), {})
    check(display.model_copy(update={"paper_ratio": None}), runs(DP_ENTRY), {})
