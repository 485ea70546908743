"""The summary table from made-up records."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust.displays.summary.display import Display, check
from dprobust.displays.summary.show import show
from dprobust.showing import Given

DP = "dpsgd_sigma=1.3_clip=1.0"
ENTRIES = [
    "sgd",
    {"sigma": 1.3, "clip": 1.0},
    {"weights": "a.pt", "name": "a", "privacy": {"epsilon": 3.0, "delta": 1e-5}},
    {"weights": "b.pt", "name": "b"},
    {"weights": "c.pt", "name": "c", "privacy": "none"},
]
NAMES = [run.name for run in runs(*ENTRIES)]
FGSM = {"ce": 0.6, "margin": 0.5, "worst": 0.45}


def given(entries=ENTRIES, names=NAMES, seeds=(0, 1), losses=FGSM):
    clean, fgsm, pgd, distances = [], [], [], []
    for i, run in enumerate(names):
        for seed in seeds:
            about, off = {"run": run, "seed": seed, "n": 10}, -0.1 * i - 0.02 * seed * (i + 1)
            clean.append(about | {"metric": "accuracy", "value": 0.99 + off})
            clean.append(about | {"metric": "p_true_is_1", "value": 0.5 - 0.1 * i})
            for loss, level in losses.items():
                for eps in (0.0, 0.1, 0.2):
                    row = about | {"metric": "accuracy", "loss": loss, "eps": eps, "value": level - eps + off}
                    fgsm.append(row)
                    if eps:
                        pgd += [row | {"steps": steps, "value": row["value"] - steps / 1000} for steps in (30, 40)]
                fgsm.append(about | {"metric": "p_true_is_1", "loss": loss, "eps": 0.0, "value": 0.123})
            # Of the four right ones the median is 0.25; the wrong one is far away.
            for place, distance in enumerate((0.1, 0.2, 0.3, np.inf, 9.0)):
                row = {"l2": 10 * distance, "linf": distance, "correct": place < 4, "index": place}
                distances.append({"run": run, "seed": seed} | row)
    records = {"clean": clean, "fgsm": fgsm, "pgd": pgd, "distances": distances}
    privacy = [{"run": DP, "delta": delta, "epsilon": eps} for delta, eps in ((1e-6, 2.02), (1e-6, 1.89), (1e-5, 1.1))]
    return Given(
        runs=runs(*entries),
        records={name: pd.DataFrame(rows) for name, rows in records.items()},
        privacy=pd.DataFrame(privacy),
    )


def test_numbers():
    data, _ = show(given(), Display(shows="summary", runs=ENTRIES, eps=[0.1, 0.2]))
    rows = data.set_index(["quantity", "eps", "run"])
    clean = rows.loc[("clean", np.nan, DP)]
    assert tuple(clean[["mean", "min", "max", "seeds"]]) == pytest.approx((87, 85, 89, 2))
    assert clean["difference"] == pytest.approx(87 - 98)
    assert rows.loc[("fgsm", 0.1, "sgd"), "mean"] == pytest.approx(35 - 1)  # of "worst", not of a loss
    assert rows.loc[("pgd", 0.2, "sgd"), "mean"] == pytest.approx(25 - 1 - 4)  # after 40 steps
    assert rows.loc[("median linf", np.nan, "sgd"), "mean"] == pytest.approx(0.25)
    assert rows.loc[("median l2", np.nan, "sgd"), "mean"] == pytest.approx(2.5)
    assert rows.loc[("saturated", np.nan, DP), "mean"] == pytest.approx(40)
    assert len(data) == len(NAMES) * (1 + 2 + 2 + 2 + 1)


def test_table_to_read():
    _, table = show(given(), Display(shows="summary", runs=ENTRIES))
    assert list(table.columns) == [
        *("model", "ε", "accuracy in %", "FGSM, eps = 0.1", "PGD, eps = 0.1"),
        *("median l∞ distance", "median l2 distance", "p = 1 in %"),
    ]
    assert list(table["ε"]) == ["∞", "1.89", "3 (stated, δ = 1e-05)", "not known", "∞"]
    assert list(table["model"])[:2] == ["SGD", "DP-SGD σ = 1.3, C = 1"]
    assert table.loc[0, "accuracy in %"] == "98.00 ± 1.41"
    assert table.loc[1, "accuracy in %"] == "87.00 ± 2.83 (−11.00)"
    assert table.loc[1, "median l∞ distance"] == "0.2500 ± 0.0000 (+0.0000)"


def test_of_one_loss_the_worst_case_is_that_loss():
    data, table = show(given(losses={"ce": 0.6}, seeds=(0,)), Display(shows="summary", runs=ENTRIES))
    assert table.loc[0, "FGSM, eps = 0.1"] == "50.00" and table.loc[0, "PGD, eps = 0.1"] == "46.00"


def test_a_run_with_a_temperature_has_its_bases_epsilon():
    entries = ["sgd", {"sigma": 1.3, "clip": 1.0, "temperature": 2.0}]
    names = [run.name for run in runs(*entries)]
    _, table = show(given(entries, names), Display(shows="summary", runs=entries))
    assert list(table["ε"]) == ["∞", "1.89"]


def test_eps_must_be_measured_by_both_attacks():
    display = Display(shows="summary", runs=ENTRIES, eps=[0.1, 0.25])
    fgsm, pgd = SimpleNamespace(eps=[0.0, 0.1, 0.25]), SimpleNamespace(eps=[0.1, 0.2])
    with pytest.raises(PydanticCustomError, match=r"eps: 0.25 is not among datasets.mnist.metrics.pgd.eps \(0.1, 0.2"):
        check(display, [], {"fgsm": fgsm, "pgd": pgd})
    check(display, [], {"fgsm": fgsm, "pgd": fgsm})
