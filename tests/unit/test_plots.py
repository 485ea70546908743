"""Figures and tables from made-up records: what is drawn is what is in the records."""

import math

import numpy as np
import pandas as pd
import pytest

from dprobust import privacy
from dprobust.plots import fgsm, style
from dprobust.study import Run
from dprobust.tables import privacy as privacy_table
from dprobust.tables import render

SGD, DP, SMALL = Run(), Run(1.3, 1.0), Run(1.3, 0.5, "sigma")
EPS = [0.0, 0.1, 0.2]


def settings(**changes):
    return {"title": "", "losses": ["ce", "margin"], "paper_gap": [], "relative": False} | changes


@pytest.fixture
def rows():
    made = []
    for run, clean in ((SGD, 0.99), (DP, 0.95), (SMALL, 0.9)):
        for loss, worse in (("ce", 0.0), ("margin", 0.1)):
            for seed in (0, 1):
                about = {"dataset": "mnist", "run": run.name, "seed": seed, "loss": loss, "n": 100}
                made += [
                    about | {"metric": "accuracy", "eps": eps, "value": clean - eps - worse + 0.02 * seed}
                    for eps in EPS
                ]
                made.append(about | {"metric": "p_true_is_1", "eps": 0.0, "value": 0.4})
    return pd.DataFrame(made)


def test_curves_are_the_records(rows):
    figure, data = fgsm.draw(rows, [SGD, DP], settings(title="T"), {DP.name: 1.89}, "demo")
    (axes,) = figure.axes
    lines = [line.get_ydata() for line in axes.get_lines()]
    assert len(lines) == 4
    np.testing.assert_allclose(lines[0], [1.0, 0.9, 0.8])
    np.testing.assert_allclose(lines[1], [0.9, 0.8, 0.7])
    np.testing.assert_allclose(lines[2], [0.96, 0.86, 0.76])
    assert len(axes.collections) == 4  # bands over the two seeds
    assert set(data["run"]) == {"sgd", DP.name} and set(data["seeds"]) == {2}
    first = data.iloc[0]
    assert (first["mean"], first["min"], first["max"]) == pytest.approx((1.0, 0.99, 1.01))
    (legend,) = figure.legends
    assert "DP-SGD σ = 1.3, C = 1 (ε = 1.89)" in [text.get_text() for text in legend.get_texts()]
    assert axes.get_title("left") == "T" and axes.get_title("right") == "demo"


def test_relative_to_the_accuracy_without_attack_of_each_seed():
    made = []
    for seed, clean in ((0, 0.8), (1, 0.5)):
        for eps, share in ((0.0, 1.0), (0.1, 0.5), (0.2, 0.25)):
            row = {"run": SGD.name, "seed": seed, "metric": "accuracy", "loss": "ce", "eps": eps}
            made.append(row | {"value": share * clean})
    figure, data = fgsm.draw(pd.DataFrame(made), [SGD], settings(losses=["ce"], relative=True), {})
    assert data["mean"].tolist() == pytest.approx([1, 0.5, 0.25])
    assert data["min"].tolist() == pytest.approx(data["max"].tolist())
    assert figure.axes[0].get_ylabel() == "accuracy / accuracy without attack"


def test_gap_panel_shows_ours_and_the_papers(rows):
    figure, _ = fgsm.draw(rows, [SGD, DP], settings(paper_gap=[[0.0, 2.6], [0.1, 15.4]]), {})
    upper, lower = figure.axes
    np.testing.assert_allclose(lower.get_lines()[0].get_ydata(), [4.0, 4.0, 4.0])
    assert [text.get_text() for text in lower.texts] == ["2.6", "15.4"]


def test_one_loss_and_one_seed(rows):
    figure, data = fgsm.draw(rows[rows["seed"] == 0], [SGD], settings(losses=["ce"]), {})
    assert len(figure.axes[0].get_lines()) == 1 and not figure.axes[0].collections
    assert len(data) == len(EPS)


def test_colours_are_fixed_for_sgd_and_ordered_for_a_sweep():
    assert style.colours([SGD, DP]) == {SGD: style.SGD_COLOUR, DP: style.DPSGD_COLOUR}
    sweep = [SGD, *(Run(1.3, clip) for clip in (0.5, 1.0, 2.0, 3.0, 4.0, 5.0))]
    shades = style.colours(sweep)
    assert shades[SGD] == style.SGD_COLOUR and len(set(shades.values())) == 7
    luminance = [sum(int(shades[run][i : i + 2], 16) for i in (1, 3, 5)) for run in sweep[1:]]
    assert luminance == sorted(luminance, reverse=True)


def test_labels():
    assert style.label(SGD) == "SGD"
    assert style.label(SMALL, 0.78) == "DP-SGD σ = 1.3, C = 0.5, noise σ (ε = 0.78)"
    assert style.label(Run(0.0, 1.0), math.inf).endswith("(ε = ∞)")


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_same_figure_same_bytes(rows, tmp_path, suffix):
    for name in "ab":
        figure, _ = fgsm.draw(rows, [SGD, DP], settings(), {})
        style.save(figure, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.fixture
def accounts():
    made = []
    for run, sampling in ((SGD, "shuffle"), (DP, "poisson"), (SMALL, "poisson"), (Run(1.5, 2.0), "shuffle")):
        multiplier = run.noise_multiplier if run.private else None
        for row in privacy.account(sampling, multiplier, 0.01, 100, 1, [1e-6, 1e-5]):
            about = {"dataset": "mnist", "run": run.name, "sampling": sampling, "sample_rate": 0.01, "steps": 100}
            made.append(about | row)
    return pd.DataFrame(made)


def test_epsilons_for_legends(accounts):
    found = style.epsilons(accounts)
    assert found["sgd"] == math.inf
    assert found[DP.name] == privacy.epsilon(1.3, 0.01, 100, 1e-6, "prv")
    assert found["dpsgd_sigma=1.5_clip=2.0"] == privacy.shuffle_epsilon(1.5, 1, 1e-6)


def test_privacy_table(accounts):
    table = privacy_table.make(accounts)
    assert list(table["run"]) == ["SGD", "DP-SGD", "DP-SGD", "DP-SGD"]
    rdp, prv, bound = (f"ε at δ = 1e-06, {name}" for name in ("RDP", "PRV", "GDP bound"))
    assert table.loc[1, prv] == f"{privacy.epsilon(1.3, 0.01, 100, 1e-6, 'prv'):.2f}"
    assert table.loc[2, "noise / C"] == "2.6" and table.loc[2, "noise on the sum"] == "1.3"
    assert list(table.loc[0, [rdp, prv, bound]]) == ["∞"] * 3
    assert list(table.loc[3, [rdp, prv]]) == ["", ""] and float(table.loc[3, bound]) > 3
    assert "nan" not in render.html(table).lower()
    latex = render.latex(table, "Caption.", "tab:x")
    assert r"\toprule" in latex and r"$\varepsilon$ at $\delta$" in latex and "∞" not in latex
