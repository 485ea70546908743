"""The page of checks, from made-up records; the metric against the call it makes."""

import pandas as pd
import pytest
import torch
from makers import runs
from torch import nn

from dprobust.attacks import check
from dprobust.measuring import Images
from dprobust.metrics.attack_check.display import Display
from dprobust.metrics.attack_check.flags import NAMES, flags
from dprobust.metrics.attack_check.measure import measure
from dprobust.metrics.attack_check.settings import Metric, others
from dprobust.metrics.attack_check.show import GREEN, RED, show
from dprobust.seeds import derive
from dprobust.showing import Given

BOTH = ["sgd", {"sigma": 1.3, "clip": 1.0}]
SGD, DP = runs(*BOTH)


def test_flags_are_told_in_words_and_colour():
    values = {(SGD.name, "p_is_1"): 0.4, (DP.name, "p_is_1"): 0.0, (SGD.name, "black_box"): 0.0}
    values[DP.name, "black_box"] = float("nan")
    records = pd.DataFrame(
        {
            "dataset": "mnist",
            "run": run,
            "seed": seed,
            "metric": "finding",
            "eps": 0.1,
            "check": name,
            "threshold": 0.05,
            "flagged": value * seed > 0.05,
            "n": 100,
            "value": value * seed,
        }
        for (run, name), value in values.items()
        for seed in (0, 1)
    )
    given = Given(runs=runs(*BOTH), records={"attack_check": records}, note="demo <1>")
    page, data = show(given, Display(shows="attack_check", runs=BOTH))
    assert f'<td style="{RED}">0.2 FLAG (1 of 2 seeds)</td><td style="{GREEN}">0 ok</td>' in page
    assert f'<td style="{GREEN}">0 ok</td><td style="{GREEN}">nothing to test ok</td>' not in page
    assert "nothing to test</td>" in page and page.count("FLAG") == 1
    assert "<td>1 flagged</td><td>0 flagged</td>" in page and "demo &lt;1&gt;" in page
    row = data[(data["run"] == SGD.name) & (data["check"] == "p_is_1")].iloc[0]
    assert (row["mean"], row["flagged"], row["seeds"]) == (pytest.approx(0.2), 1, 2)


def test_the_metric_keeps_what_the_check_finds():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
        x = torch.rand(16, 1, 8, 8)
    y = model(x).argmax(1)
    about = {"dataset": "mnist", "run": "sgd", "seed": "0"}
    images = Images(x, y, torch.arange(16), torch.arange(16), about)
    measured = measure(model, images, Metric(eps=[0.05, 0.1], square_queries=20, planted=2))
    seed = derive("mnist", "sgd", "0", "attack_check", 0.1)
    wanted = check(model, x, y, 0.1, queries=20, planted=2, seed=seed)
    rows = [row for row in measured.rows if row["eps"] == 0.1]
    assert [(row["check"], row["flagged"]) for row in rows] == [(f.name, f.flagged) for f in wanted]
    assert measured.arrays["finding"][1] == pytest.approx([f.value for f in wanted], nan_ok=True)
    assert {row["check"] for row in rows} <= set(NAMES) and "transfer" not in {row["check"] for row in rows}


def test_images_of_other_runs_models_are_tried():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).eval() for _ in range(2)]
        x = torch.rand(16, 1, 8, 8)
    about = {"dataset": "mnist", "run": "sgd", "seed": "0"}
    images = Images(x, models[0](x).argmax(1), torch.arange(16), torch.arange(16), about, others={"b": models[1]})
    settings = Metric(eps=[0.1], square_queries=20, planted=2)
    rows = {row["check"]: row["value"] for row in measure(models[0], images, settings).rows}
    seed = derive("mnist", "sgd", "0", "attack_check", 0.1)
    wanted = check(models[0], x, images.y, 0.1, others=[models[1]], queries=20, planted=2, seed=seed)
    assert rows["transfer"] == {found.name: found.value for found in wanted}["transfer"]
    assert set(rows) == set(NAMES)


def test_where_images_are_transferred_from():
    known = ["dpsgd_a", "dpsgd_b", "sgd", "weights=x"]
    assert [others(Metric(), run, known) for run in ("dpsgd_a", "sgd")] == [["sgd"], []]
    assert others(Metric(), "weights=x", ["weights=x", "weights=y"]) == []
    listed = Metric(transfer_from=["sgd", "dpsgd_b"])
    assert others(listed, "dpsgd_b", known) == ["sgd"] and others(listed, "dpsgd_a", known) == ["sgd", "dpsgd_b"]


def test_what_the_check_flags_is_told_for_figures():
    rows = [
        {"run": run, "seed": seed, "eps": 0.1, "check": name, "flagged": name in of and seed in of[name]}
        for run, of in (("sgd", {"p_is_1": (0, 1), "restarts": (1,)}), ("dp", {}))
        for seed in (0, 1)
        for name in ("p_is_1", "restarts", "one_step")
    ]
    by, found = flags(pd.DataFrame(rows), Metric(eps=[0.05, 0.1]))
    assert by == "flagged by the attack check (PGD along ce, eps 0.05, 0.1)"
    assert found == {"sgd": "p = 1, random starts break more (1 of 2 seeds)"}
    given = Given(runs=runs(*BOTH), flags={by: {SGD.name: found["sgd"], DP.name: found["sgd"]}}, note="demo")
    assert given.label(SGD) == "SGD †" and given.mark(DP.name) == " †"
    assert given.footnote == f"demo. † {by}: SGD and DP-SGD σ = 1.3, C = 1: {found['sgd']}"
    assert Given(runs=runs(*BOTH), note="demo").footnote == "demo" and not Given(runs=runs(*BOTH)).mark("sgd")
