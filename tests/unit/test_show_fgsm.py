"""Figs 2, 3 and 7 from made-up records: what is drawn is what is in the records."""

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from dprobust import style
from dprobust.metrics.fgsm.display import Display, check
from dprobust.metrics.fgsm.show import show
from dprobust.showing import Given
from dprobust.statistics import mean_interval

BOTH = ["sgd", {"sigma": 1.3, "clip": 1.0}]
SGD, DP = runs(*BOTH)
EPS = [0.0, 0.1, 0.2]
WORSE = {"ce": 0.0, "ce_stable": 0.04, "margin": 0.1, "worst": 0.12}


IMAGES = 1000


def arrays(rows):
    """Outcomes of images with these accuracies. Along margin the attack leaves twenty images right that no other loss
    leaves: the worst case is below each."""
    kept = {}
    for (run, seed), of in rows[rows["metric"] == "accuracy"].groupby(["run", "seed"]):
        losses, eps = [loss for loss in of["loss"].unique() if loss != "worst"], np.sort(of["eps"].unique())
        wrong = np.ones((len(losses), len(eps), IMAGES), np.uint8)
        for row in of.itertuples():
            if row.loss != "worst":
                n, at = round(IMAGES * row.value), (losses.index(row.loss), list(eps).index(row.eps))
                wrong[at][: n - 20 * (row.loss == "margin")] = 0
                wrong[at][IMAGES - 20 * (row.loss == "margin") :] = 0
        kept["fgsm", "mnist", run, seed] = {
            "loss": np.array(losses),
            "eps": eps,
            "predicted": wrong,
            "label": np.zeros(IMAGES, np.uint8),
        }
    return kept


def draw(rows, entries=BOTH, note="", **settings):
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=runs(*entries), arrays=arrays(rows), privacy=privacy, note=note)
    return show(given, Display(shows="fgsm", runs=entries, **settings))


@pytest.fixture
def rows():
    made = []
    for run, clean in (("sgd", 0.96), (DP.name, 0.92), ("dpsgd_sigma=1.3_clip=0.5_noise=sigma", 0.87)):
        for loss, worse in WORSE.items():
            for seed in (0, 1):
                about = {"dataset": "mnist", "run": run, "seed": seed, "loss": loss, "n": 100}
                made += [
                    about | {"metric": "accuracy", "eps": eps, "value": clean - eps - worse + 0.02 * seed}
                    for eps in EPS
                ]
                made.append(about | {"metric": "p_true_is_1", "eps": 0.0, "value": 0.4})
    return pd.DataFrame(made)


def test_curves_are_the_records_along_ce_ce_stable_and_the_worst_case(rows):
    figure, data = draw(rows, note="demo", title="T")
    (axes,) = figure.axes
    lines = [line.get_ydata() for line in axes.get_lines()]
    assert len(lines) == 6
    for line, clean, loss in zip(lines, [0.97] * 3 + [0.93] * 3, ["ce", "ce_stable", "worst"] * 2, strict=True):
        np.testing.assert_allclose(line, clean - np.array(EPS) - WORSE[loss])
    assert len(axes.collections) == 6  # bands over the two seeds
    assert set(data["run"]) == {"sgd", DP.name} and set(data["seeds"]) == {2} and set(data["minus"]) == {""}
    first = data.iloc[0]
    assert first["mean"] == pytest.approx(0.97) and first["low"] < 0.96 < 0.98 < first["high"]
    values = np.stack([of["predicted"][0, 0] == 0 for key, of in sorted(arrays(rows).items()) if key[2] == "sgd"])
    assert (first["mean"], first["low"], first["high"]) == mean_interval(values.astype(float), within=(0, 1))
    (legend,) = figure.legends
    texts = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert "DP-SGD σ = 1.3, C = 1 (ε = 1.89)" in texts
    assert "worst case of the losses, image by image" in texts
    assert figure.get_suptitle() == "T" and figure.get_supxlabel() == "demo"


def test_flagged_runs_are_marked_in_the_legend_and_told_below(rows):
    given = Given(runs=runs(*BOTH), arrays=arrays(rows), flags={"flagged by a check": {"sgd": "p = 1"}}, note="demo")
    figure, _ = show(given, Display(shows="fgsm", runs=BOTH))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "SGD †" in texts and sum("†" in text for text in texts) == 1
    assert figure.get_supxlabel() == "demo. † flagged by a check: SGD: p = 1"


def test_each_loss_has_a_line_style_of_its_own(rows):
    figure, _ = draw(rows, losses=["ce", "ce_stable", "margin", "worst"])
    lines = figure.axes[0].get_lines()
    assert len({str(line._dash_pattern) for line in lines}) == 4
    for loss in range(4):  # and the same for every run
        assert lines[loss]._dash_pattern == lines[loss + 4]._dash_pattern


def test_relative_to_the_accuracy_without_attack_of_each_seed():
    made = []
    for seed, clean in ((0, 0.8), (1, 0.5)):
        for eps, share in ((0.0, 1.0), (0.1, 0.5), (0.2, 0.25)):
            row = {"run": SGD.name, "seed": seed, "metric": "accuracy", "loss": "ce", "eps": eps}
            made.append(row | {"value": share * clean})
    figure, data = draw(pd.DataFrame(made), ["sgd"], losses=["ce"], relative=True)
    assert data["mean"].tolist() == pytest.approx([1, 0.5, 0.25])
    assert data["low"].tolist()[0] == 1 == data["high"].tolist()[0]
    assert figure.axes[0].get_ylabel() == "accuracy / accuracy without attack"


def test_gap_panel_shows_ours_and_the_papers(rows):
    rows.loc[(rows["run"] == DP.name) & (rows["seed"] == 1), "value"] -= 0.04
    figure, data = draw(rows, paper_gap=[[0.0, 2.6], [0.1, 15.4]])
    upper, lower = figure.axes
    np.testing.assert_allclose(lower.get_lines()[0].get_ydata(), [6.0, 6.0, 6.0])
    assert [text.get_text() for text in lower.texts] == ["2.6", "15.4"]
    assert lower.get_ylabel() == "gap (points)\nSGD − DP-SGD"
    gaps = data[data["minus"] == DP.name]
    assert len(gaps) == 3 * len(EPS) and set(gaps["run"]) == {"sgd"}
    assert gaps["mean"].tolist() == pytest.approx([0.06] * 9)
    assert (gaps["low"] < 0.04).all() and (gaps["high"] > 0.08).all()  # two seeds, 4 points apart


def test_gap_panel_names_runs_of_any_kind(rows):
    """Two DP-SGD runs, or SGD at two learning rates, are no "SGD − DP-SGD"."""
    rows["run"] = rows["run"].replace({"sgd": "dpsgd_sigma=2.0_clip=1.0"})
    figure, _ = draw(rows, [{"sigma": [1.3, 2.0], "clip": 1.0}], paper_gap=[[0.0, 2.6]])
    assert figure.axes[1].get_ylabel() == "gap (points)\nσ = 1.3 − σ = 2"
    np.testing.assert_allclose(figure.axes[1].get_lines()[0].get_ydata(), [-4.0, -4.0, -4.0])


def test_one_loss_and_one_seed(rows):
    figure, data = draw(rows[rows["seed"] == 0], ["sgd"], losses=["ce"])
    assert len(figure.axes[0].get_lines()) == 1 and len(figure.axes[0].collections) == 1  # over the images
    assert len(data) == len(EPS)


def metric(losses=("ce", "ce_stable", "margin"), eps=(0.0, 0.1)):
    return {"fgsm": type("Measured", (), {"losses": list(losses), "eps": list(eps)})}


@pytest.mark.parametrize(
    ("settings", "measured", "message"),
    [
        (
            {"losses": ["ce", "margin"]},
            metric(["ce", "ce_stable"]),
            r"^losses: margin is not among .*metrics\.fgsm\.losses$",
        ),
        ({"losses": ["ce", "worst"]}, metric(["ce"]), r"^losses: worst needs two losses or more in datasets\.mnist\."),
        ({"relative": True}, metric(eps=[0.1]), r"^relative: needs 0\.0 in datasets\.mnist\.metrics\.fgsm\.eps$"),
        ({"paper_gap": [[0.0, 2.6]], "runs": ["sgd"]}, metric(), r"^paper_gap: needs two runs, the figure has 1$"),
    ],
)
def test_a_figure_cannot_ask_for_what_is_not_there(settings, measured, message):
    display = Display(**{"shows": "fgsm", "runs": BOTH} | settings)
    with pytest.raises(PydanticCustomError, match=message):
        check(display, runs(*settings.get("runs", BOTH)), measured)


def test_a_figure_may_ask_for_what_is_measured():
    check(Display(shows="fgsm", runs=BOTH, relative=True, paper_gap=[[0.0, 2.6]]), [SGD, DP], metric())
    for bad in ({"losses": []}, {"losses": ["ce", "ce"]}, {"losses": ["cw"]}, {"paper_gap": [[0.1]]}):
        with pytest.raises(ValidationError):
            Display(**{"shows": "fgsm", "runs": BOTH} | bad)


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_same_figure_same_bytes(rows, tmp_path, suffix):
    for name in "ab":
        figure, _ = draw(rows)
        style.save(figure, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
