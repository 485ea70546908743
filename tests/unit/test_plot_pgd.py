"""Table 1, Fig 4 and Fig 1 from made-up records: what is shown is what is in the records."""

import pandas as pd
import pytest

from dprobust.plots import pgd_iterations
from dprobust.study import Run
from dprobust.tables import pgd, render

SGD, DP = Run(), Run(1.3, 1.0)


def accuracy():
    return pd.DataFrame(
        {"run": run.name, "seed": seed, "metric": "accuracy", "loss": loss, "eps": 0.1, "alpha": 0.01}
        | {"steps": steps, "n": 100, "value": value - worse - steps / 1000 + 0.02 * seed}
        for run, value in ((SGD, 0.8), (DP, 0.6))
        for loss, worse in (("ce", 0.0), ("margin", 0.1))
        for steps in (30, 40)
        for seed in (0, 1)
    )


def test_table_1():
    paper = {"sgd": {"0.1/40": 80.44}, DP.name: {"0.1/40": 60.89}}
    data, shown = pgd.make(accuracy(), [SGD, DP], {"losses": ["ce", "margin"], "paper": paper})
    row = data[(data["loss"] == "ce") & (data["steps"] == 40) & (data["run"] == "sgd")].iloc[0]
    assert (row["mean"], row["min"], row["max"]) == pytest.approx((77, 76, 78)) and row["seeds"] == 2
    assert row["paper"] == 80.44
    gap = data[(data["loss"] == "margin") & (data["steps"] == 30) & data["run"].str.contains(" - ")].iloc[0]
    assert gap["mean"] == pytest.approx(20)
    cells = " ".join(map(str, shown.iloc[1]))
    assert "80.44" in cells and "60.89" in cells and "19.55" in cells and "77.00 ± 1.41" in cells
    assert "nan" not in render.html(shown).lower()
    assert r"\pm" in render.latex(shown, "Caption.", "tab:x")


def iterations():
    """Of 100 images: 10 wrong from the start; then SGD loses 9 a step, DP-SGD 18; the rest is never fooled."""
    rows = []
    for run, rate in ((SGD, 9), (DP, 18)):
        about = {"run": run.name, "seed": 0, "loss": "ce", "eps": 0.1, "alpha": 0.01, "n": 100}
        fooled = [("fooled", step, rate) for step in (1, 2, 3)]
        for metric, step, count in [("wrong_from_the_start", 0, 10), *fooled, ("never_fooled", 3, 90 - 3 * rate)]:
            rows.append(about | {"metric": metric, "iterations": step, "value": count})
    return pd.DataFrame(rows)


def test_fig_4_is_the_share_of_the_right_images_that_are_fooled():
    figure, data = pgd_iterations.draw(iterations(), [SGD, DP], {"title": "T"}, {}, "demo")
    curves = [list(line.get_ydata()) for line in figure.axes[0].get_lines() if len(line.get_ydata()) == 4]
    assert [pytest.approx(curve) for curve in curves] == [[0, 0.1, 0.2, 0.3], [0, 0.2, 0.4, 0.6]]
    assert set(data["run"]) == {"sgd", DP.name}
