"""The summary table from made-up records."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from makers import runs
from pydantic_core import PydanticCustomError

from dprobust.displays.summary.display import Display, check
from dprobust.displays.summary.show import show
from dprobust.showing import Given
from dprobust.statistics import mean_interval

DP = "dpsgd_sigma=1.3_clip=1.0"
ENTRIES = [
    "sgd",
    {"sigma": 1.3, "clip": 1.0},
    {"weights": "a.pt", "name": "a", "privacy": {"epsilon": 3.0, "delta": 1e-5}},
    {"weights": "b.pt", "name": "b"},
    {"weights": "c.pt", "name": "c", "privacy": "none"},
]
NAMES = [run.name for run in runs(*ENTRIES)]
FGSM = {"ce": 60, "margin": 50}
"""Loss -> images of 100 that FGSM along it leaves at eps 0; of several the first 5 are lost along ce."""
EPS = [0.1, 0.2]


def right(n):
    return np.arange(100) < n


def given(entries=ENTRIES, names=NAMES, seeds=(0, 1), losses=FGSM):
    arrays = {}
    for i, run in enumerate(names):
        for seed in seeds if i < 2 else seeds[:1]:
            off = 10 * i + 2 * seed * (i + 1)
            label, first = np.ones(100, np.uint8), np.arange(100) < (5 if len(losses) > 1 else 0)

            def left(n, loss, first=first):
                return right(n) & ~(first & (loss == "ce"))

            by_eps = [[left(level - 100 * eps - off, loss) for eps in (0.0, *EPS)] for loss, level in losses.items()]
            steps = [
                [[left(level - 100 * eps - off - k // 10, loss) for k in (30, 40)] for eps in EPS]
                for loss, level in losses.items()
            ]
            # Of the four right ones the median is 0.25, without an interval where one may be infinite.
            linf = np.array([0.1, 0.2, 0.3, np.inf, 9.0], np.float32)
            found = {
                "clean": {"logits": np.stack([~right(99 - off), right(99 - off)], 1).astype(np.float32)},
                "fgsm": {"eps": np.array([0.0, *EPS]), "predicted": np.array(by_eps).astype(np.uint8)}
                | {"saturated": np.stack([right(50 - 10 * i)] * len(losses))},
                "pgd": {"eps": np.array(EPS), "predicted": np.array(steps).astype(np.uint8)}
                | {"steps": np.array([30, 40]), "clean": right(99 - off).astype(np.uint8)},
                "distances": {"norm": np.array(["l2", "linf"]), "distance": np.stack([10 * linf, linf])}
                | {"correct": np.arange(5) < 4},
            }
            about = {"label": label, "loss": np.array([*losses])}
            arrays |= {(metric, "mnist", run, seed): of | about for metric, of in found.items()}
    privacy = [{"run": DP, "delta": delta, "epsilon": eps} for delta, eps in ((1e-6, 2.02), (1e-6, 1.89), (1e-5, 1.1))]
    return Given(
        runs=runs(*entries),
        arrays=arrays,
        privacy=pd.DataFrame(privacy),
    )


def test_numbers():
    data, _ = show(given(), Display(shows="summary", runs=ENTRIES, eps=EPS))
    rows = data.set_index(["quantity", "eps", "run"])
    clean = rows.loc[("clean", np.nan, DP)]
    own, first = (100.0 * np.array([right(n) for n in of]) for of in ((89, 85), (99, 97)))
    assert tuple(clean[["mean", "low", "high"]]) == pytest.approx(mean_interval(own, within=(0, 100)))
    assert tuple(clean[["mean", "seeds", "difference"]]) == pytest.approx((87, 2, 87 - 98))
    ends = clean[["difference", "difference_low", "difference_high"]]
    assert tuple(ends) == pytest.approx(mean_interval(own - first))
    assert rows.loc[("fgsm", 0.1, "sgd"), "mean"] == pytest.approx(40 - 1 - 5)  # of the worst case, not of a loss
    assert rows.loc[("pgd", 0.2, "sgd"), "mean"] == pytest.approx(30 - 1 - 5 - 4)  # after 40 steps
    assert rows.loc[("clean", np.nan, "weights=a"), "seeds"] == 1
    assert rows.loc[("median linf", np.nan, "sgd"), "mean"] == pytest.approx(0.25)
    assert rows.loc[("median l2", np.nan, "sgd"), "mean"] == pytest.approx(2.5)
    assert rows.loc[("saturated", np.nan, DP), "mean"] == pytest.approx(40)
    assert len(data) == len(NAMES) * (1 + 2 + 2 + 2 + 1)


def test_table_to_read():
    _, table = show(given(), Display(shows="summary", runs=ENTRIES))
    assert list(table.columns) == [
        *("model", "ε", "accuracy in % [95 %]", "FGSM, eps = 0.1 [95 %]", "PGD, eps = 0.1 [95 %]"),
        *("median l∞ distance [95 %]", "median l2 distance [95 %]", "p = 1 in % [95 %]"),
    ]
    assert list(table["ε"]) == ["∞", "1.89", "3 (stated, δ = 1e-05)", "not known", "∞"]
    assert list(table["model"])[:2] == ["SGD", "DP-SGD σ = 1.3, C = 1"]
    first, second = (table.loc[i, "accuracy in % [95 %]"] for i in (0, 1))
    assert re.fullmatch(r"98\.00 \[\d\d\.\d\d, 100\.00\]", first)
    assert re.fullmatch(r"87\.00 \[7\d\.\d\d, 9\d\.\d\d\] \(−11\.00 \[−1\d\.\d\d, −\d\.\d\d\]\)", second)
    assert table.loc[1, "median l∞ distance [95 %]"] == "0.2500 (+0.0000)"


def test_of_one_loss_the_worst_case_is_that_loss():
    data, table = show(given(losses={"ce": 60}, seeds=(0,)), Display(shows="summary", runs=ENTRIES))
    heads = [f"{name}, eps = 0.1 [95 %, images only]" for name in ("FGSM", "PGD")]
    assert [table.loc[0, head].split(" ")[0] for head in heads] == ["50.00", "46.00"]


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
