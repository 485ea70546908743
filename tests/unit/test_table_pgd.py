"""Table 1 from made-up records."""

import pandas as pd
import pytest

from dprobust.study import Run
from dprobust.tables import pgd, render

SGD, DP = Run(), Run(1.3, 1.0)
SETTINGS = {
    "losses": ["ce", "margin"],
    "paper": {"sgd": {"0/0": 99.14, "0.1/40": 80.44}, DP.name: {"0/0": 96.53, "0.1/40": 60.89, "9/9": 1.0}},
}


@pytest.fixture
def records():
    made = []
    for run, level in ((SGD, 0.9), (DP, 0.8)):
        for loss, worse in (("ce", 0.0), ("margin", 0.05), ("ce_stable", 0.5)):
            for seed in (0, 1):
                for eps, steps in ((0.0, 0), (0.1, 30), (0.1, 40)):
                    value = level - eps - worse - 0.02 * seed - (0.04 * seed if run == DP else 0)
                    about = {"run": run.name, "seed": seed, "loss": loss, "eps": eps, "steps": steps, "n": 100}
                    made.append(about | {"metric": "accuracy", "alpha": 0.01, "value": value})
    return pd.DataFrame(made)


def test_numbers_in_percent_with_the_papers_beside_the_first_loss(records):
    data, _ = pgd.make(records, [SGD, DP], SETTINGS)
    assert len(data) == 3 * 2 * 3 and set(data["loss"]) == {"ce", "margin"}
    rows = data.set_index(["loss", "eps", "steps", "run"]).sort_index()
    sgd, gap = rows.loc[("ce", 0.1, 40, "sgd")], rows.loc[("ce", 0.1, 40, f"sgd - {DP.name}")]
    assert (sgd["mean"], sgd["min"], sgd["max"], sgd["paper"]) == pytest.approx((79, 78, 80, 80.44))
    # The difference is taken seed by seed: 10 and 14 points.
    assert (gap["mean"], gap["min"], gap["max"], gap["paper"]) == pytest.approx((12, 10, 14, 19.55))
    assert gap["std"] == pytest.approx(8**0.5) and gap["seeds"] == 2
    assert rows.loc["margin", "paper"].isna().all() and pd.isna(rows.loc[("ce", 0.1, 30, "sgd"), "paper"])


def test_the_table_to_read(records):
    _, table = pgd.make(records, [SGD, DP], SETTINGS)
    assert list(table.columns.get_level_values(0).unique()) == ["", "SGD", "DP-SGD σ = 1.3, C = 1", "difference"]
    assert list(table["SGD"]) == ["paper", "cross-entropy", "margin loss"]
    assert list(table["SGD", "cross-entropy"]) == ["89.00 ± 1.41", "79.00 ± 1.41", "79.00 ± 1.41"]
    assert list(table["difference", "paper"]) == ["2.61", "", "19.55"]
    html, latex = render.html(table), render.latex(table, "Caption", "tab:x")
    assert 'colspan="3"' in html and "nan" not in html.lower()
    assert r"\multicolumn{3}{c}{SGD}" in latex and r"$\pm$" in latex and r"\toprule" in latex
    assert "nan" not in latex.lower() and latex.isascii()


def test_one_seed_one_run_and_no_paper(records):
    one = records[(records["seed"] == 0) & (records["run"] == "sgd")]
    data, table = pgd.make(one, [SGD], {"losses": ["margin"], "paper": {}})
    assert list(table["SGD"]) == ["margin loss"] and list(table["SGD", "margin loss"]) == ["85.00", "75.00", "75.00"]
    assert data["paper"].isna().all()


def test_several_private_runs_each_have_their_difference(records):
    other = records[records["run"] == DP.name].assign(run=Run(2.0, 1.0).name)
    _, table = pgd.make(pd.concat([records, other]), [SGD, DP, Run(2.0, 1.0)], SETTINGS)
    assert "SGD − DP-SGD σ = 2, C = 1" in table.columns.get_level_values(0)
    assert "paper" not in table["SGD − DP-SGD σ = 2, C = 1"]
