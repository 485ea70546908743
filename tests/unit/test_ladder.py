"""The metric `ladder`: what it records of a small network, and its table from made-up records."""

from types import SimpleNamespace
from typing import get_args

import docutils.core
import jinja2
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT
from makers import runs
from pydantic import ValidationError
from torch import nn

from dprobust import rendering
from dprobust.attacks import BUDGETS, RUNGS, Budget, ladder
from dprobust.inference import predict
from dprobust.measuring import Images
from dprobust.metrics.ladder import settings as typed
from dprobust.metrics.ladder.display import Display
from dprobust.metrics.ladder.measure import measure
from dprobust.metrics.ladder.show import NAMES, show
from dprobust.seeds import derive
from dprobust.showing import Given, intervals
from dprobust.statistics import mean_interval

DP, OTHER = "dpsgd_sigma=1.3_clip=1.0", "dpsgd_sigma=2.0_clip=1.0"
SGD_DP = ["sgd", {"sigma": 1.3, "clip": 1.0}]
FEW = {"pgd_steps": 5, "classes": 2, "apgd_steps": 8, "square_queries": 20}


# Settings.


def test_settings_agree_with_the_attacks():
    assert get_args(typed.RungName) == tuple(RUNGS) and typed.Metric().rungs == list(RUNGS)
    assert dict(typed.Budget()) == Budget()._asdict()
    assert set(NAMES) == {"clean", *RUNGS}
    assert tuple(BUDGETS) == get_args(typed.BudgetName) == tuple(typed.BUDGETS)
    assert typed.Metric(**typed.Metric(budget={"classes": 3}).plain()).budget.classes == 3


@pytest.mark.parametrize("name", BUDGETS)
def test_a_name_stands_for_the_numbers_of_a_budget(name):
    settings = typed.Metric(budget=name)
    assert dict(settings.budget) == BUDGETS[name]._asdict()
    for told in (settings.plain(), settings.brief()):
        assert name not in str(told) and typed.Metric(**told) == settings
    assert (settings == typed.Metric()) == (name == "full")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"eps": [0.2, 0.1]}, "eps"),
        ({"eps": [0.0]}, "eps"),
        ({"eps": []}, "eps"),
        ({"norm": "l1"}, "norm"),
        ({"rungs": ["pgd", "pgd"]}, "rungs"),
        ({"rungs": ["fab"]}, "rungs"),
        ({"budget": {"square_queries": 0}}, "budget.square_queries"),
        ({"budget": {"querys": 5}}, "budget"),
        ({"budget": "quick"}, "budget"),
        ({"alone_images": -1}, "alone_images"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, key):
    with pytest.raises(ValidationError) as error:
        typed.Metric(**change)
    assert ".".join(map(str, error.value.errors()[0]["loc"][: key.count(".") + 1])) == key


# What is measured.


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 5)).eval()
    with torch.no_grad():
        model[-1].weight *= 4
        x = torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(3))
        model[-1].bias -= model(x).mean(0)
    return model


@pytest.fixture(scope="module")
def given():
    """A smooth network, and twenty images of which it has every fourth wrong."""
    model, x = network(), torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = predict(model, x)
    y[::4] = (y[::4] + 1) % 5
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    return model, Images(x, y, torch.arange(20) * 3, order, {"dataset": "own", "run": "sgd", "seed": "0"})


def test_the_metric_records_the_ladder(given):
    model, images = given
    settings = typed.Metric(eps=[0.01, 0.03], budget=FEW, alone_images=12)
    result = measure(model, images, settings)
    table, arrays = pd.DataFrame(result.rows), result.arrays
    assert list(table.columns) == ["metric", "rung", "norm", "eps", "n", "value"]
    assert all(name in measure.__doc__ for name in arrays)
    names = ["clean", *RUNGS]
    assert arrays["rung"].tolist() == names and arrays["eps"].tolist() == [0.01, 0.03]
    assert arrays["broken_by"].shape == (2, 20) and arrays["broken_by"].dtype == np.int8
    few = images.order[:12].sort().values
    assert arrays["alone_index"].tolist() == images.index[few].tolist() and arrays["alone"].shape == (2, 9, 12)
    for e, eps in enumerate(settings.eps):
        seed = derive("own", "sgd", "0", "ladder", "linf", eps)
        found = ladder(model, images.x, images.y, eps, budget=Budget(**FEW), seed=seed)
        np.testing.assert_array_equal(arrays["broken_by"][e], found.broken_by)
        rows = table[(table["eps"] == eps) & (table["metric"] == "accuracy")]
        assert rows["rung"].tolist() == names and rows["value"].tolist() == list(found.accuracy)
        assert rows["value"].iloc[0] == 0.75 > rows["value"].iloc[-1] and (rows["n"] == 20).all()
        # An image alone is the same attack: the first in the order of the ladder that breaks it is the one recorded.
        alone, by = arrays["alone"][e], arrays["broken_by"][e][few]
        np.testing.assert_array_equal(np.where(alone.any(0), alone.argmax(0), -1), by)
        final = by > 0
        assert final.any()
        rows = table[(table["eps"] == eps) & (table["metric"] == "alone")]
        assert rows["rung"].tolist() == list(RUNGS) and (rows["n"] == final.sum()).all()
        np.testing.assert_allclose(rows["value"], alone[1:, final].mean(1))
    assert (arrays["broken_by"][0] < 0).any() and (arrays["broken_by"][1] > 0).sum() > (
        arrays["broken_by"][0] > 0
    ).sum()


def test_fewer_rungs_in_l2_and_none_alone(given):
    model, images = given
    result = measure(
        model, images, typed.Metric(eps=[0.1], norm="l2", rungs=["square", "pgd"], budget=FEW, alone_images=0)
    )
    table = pd.DataFrame(result.rows)
    assert table["rung"].tolist() == ["clean", "square", "pgd"] and set(table["norm"]) == {"l2"}
    assert set(table["metric"]) == {"accuracy"} and set(result.arrays) == {"rung", "eps", "norm", "broken_by"}


def test_no_breaks_no_shares_of_them(given):
    model, images = given
    result = measure(model, images, typed.Metric(eps=[1e-9], rungs=["pgd"], budget=FEW))
    assert set(pd.DataFrame(result.rows)["metric"]) == {"accuracy"} and result.arrays["alone"].shape == (1, 2, 20)


def test_two_classes_and_two_pixels():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval(), torch.rand(5, 1, 1, 2)
    about = {"dataset": "own", "run": "sgd", "seed": "0"}
    images = Images(x, torch.tensor([0, 1, 0, 1, 1]), torch.arange(5), torch.arange(5), about)
    frozen = torch.jit.freeze(torch.jit.script(model))
    one, other = (measure(m, images, typed.Metric(budget=FEW)) for m in (model, frozen))
    np.testing.assert_array_equal(one.arrays["broken_by"], other.arrays["broken_by"])


# What is shown.

LEFT = {"sgd": {"clean": 98.0, "pgd": 9.0, "square": 4.0}, DP: {"clean": 94.0, "pgd": 8.0, "square": 6.0}}


def records(seeds=(0, 1), alone=True, shifts=(0,)):
    """Of 100 images the first so many are left; of 40 of those broken in the end PGD breaks 36 by itself, Square 10.

    Args:
        shifts: for each eps, images more that SGD loses.
    """
    made = {}
    for run, left in LEFT.items():
        for seed in seeds:
            broken = []
            for shift in shifts:
                clean, pgd, square = (round(v) - ((2 * seed + shift) if run == "sgd" else 0) for v in left.values())
                place = np.arange(100)
                broken.append(np.select([place < square, place < pgd, place < clean], [-1, 2, 1], 0))
            by_itself = np.array([[place >= 90] + [place % 10 != 0, place % 4 == 0]] * len(shifts))[..., 45:85]
            made["ladder", "mnist", run, seed] = {
                "rung": np.array([*left]),
                "norm": np.array(["linf"]),
                "eps": np.array([0.2, 0.1][: len(shifts)][::-1]),
                "broken_by": np.array(broken).astype(np.int8),
                "index": 3 * place,
            } | ({"alone_index": 3 * place[45:85], "alone": by_itself} if alone else {})
    return made


def shown(arrays, entries=SGD_DP, **settings):
    return show(Given(runs=runs(*entries), arrays=arrays), Display(shows="ladder", runs=entries, **settings))


def test_numbers_and_where_the_order_turns():
    data, _ = shown(records())
    rows = data.set_index(["rung", "run"])
    assert len(data) == 3 * 3 and set(data["eps"]) == {0.2} and set(data["seeds"]) == {2}
    left = 100.0 * np.array([np.arange(100) < left for left in (9, 7)])
    known = mean_interval(left, within=(0, 100))
    assert tuple(rows.loc[("pgd", "sgd"), ["mean", "low", "high"]]) == pytest.approx(known)
    assert known[0] == pytest.approx(8) and rows.loc[("square", "sgd"), "low"] == 0  # an accuracy is not below 0
    gaps = rows.xs(f"sgd - {DP}", level="run")
    # Seed by seed: 98 and 96 less 94, 9 and 7 less 8, 4 and 2 less 6.
    assert gaps["mean"].tolist() == pytest.approx([3, 0, -3])
    ends = mean_interval(left - 100.0 * (np.arange(100) < 8))
    assert tuple(gaps.loc["pgd", ["mean", "low", "high"]]) == pytest.approx(ends)
    assert gaps["turned"].tolist() == [False, False, True]
    assert not rows["turned"].drop(f"sgd - {DP}", level="run").any()
    assert rows.loc[("pgd", DP), "alone"] == pytest.approx(90) and np.isnan(rows.loc[("clean", DP), "alone"])


def test_the_table_to_read():
    _, table = shown(records())
    assert list(table.columns.get_level_values(0).unique()) == ["", "SGD", "DP-SGD σ = 1.3, C = 1", "difference"]
    assert list(table["", "after"]) == ["no attack", "PGD, cross-entropy", "Square Attack"]
    assert [text.split(" ")[0] for text in table["SGD", "alone [95 %]"]] == ["", "90", "25"]
    assert list(table["difference"]) == ["left [95 %]"]
    texts = list(table["difference", "left [95 %]"])
    assert [text.split(" ")[0] for text in texts] == ["3.00", "0.00", "−3.00"]
    assert [text.endswith("] (turned)") for text in texts] == [False, False, True]
    html, latex = rendering.html(table), rendering.latex(table, "Caption", "tab:x")
    assert "nan" not in html.lower() + latex.lower() and latex.isascii()
    for _, without in (shown(records(), alone=False), shown(records(alone=False))):
        assert not any("alone" in head for head in without.columns.get_level_values(1))


def test_one_seed_and_one_run():
    data, table = shown(records((0,)), ["sgd"])
    (head,) = (head for head in table["SGD"] if head.startswith("left"))
    assert head == "left [95 %, images only]" and not data["turned"].any()
    assert [text.split(" ")[0] for text in table["SGD", head]] == ["98.00", "9.00", "4.00"]


def test_several_eps_each_begin_without_attack():
    data, table = shown(records(shifts=(4, 0)))  # at eps 0.1 DP-SGD is ahead from the start
    gaps = data[data["run"] == f"sgd - {DP}"].set_index(["eps", "rung"])["turned"]
    assert not gaps[0.1].any() and gaps[0.2].tolist() == [False, False, True]
    assert list(table["", "eps"]) == ["0.1"] * 3 + ["0.2"] * 3


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("seeds", "budget"), [(1, "full"), (5, "fast")])
def test_caption(alone, seeds, budget):
    path = ROOT / "dprobust" / "metrics" / "ladder" / "caption.rst"
    told = {
        "title": "",
        "settings": {"title": "", "alone": alone},
        "measured": {"ladder": typed.Metric(budget=budget).plain()},
        "images": {"ladder": 321},
        "dataset": "mnist",
        "seeds": seeds,
        "intervals": intervals(seeds),
        "trained": "epochs: 50 (SGD), 40 (DP-SGD)",
    }
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(path.read_text(encoding="utf-8"))
    source = template.render(snakemake=SimpleNamespace(params=SimpleNamespace(told=told)))
    document = docutils.core.publish_doctree(source, settings_overrides={"report_level": 1, "halt_level": 2})
    text = " ".join(document.astext().split())
    assert "321 mnist test images drawn at random" in text and "linf ball" in text and "upper bound" in text
    assert f"{BUDGETS[budget].square_queries} random changes" in text and ("brings to 0.1" in text) == (
        budget == "fast"
    )
    assert (
        "upper bound" in text
        and ("alone:" in text) == alone
        and ("other trainings are not covered" in text) == (seeds == 1)
    )
    assert max(len(line) for line in path.read_text(encoding="utf-8").splitlines()) <= 120
