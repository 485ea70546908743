"""The benchmarks: the harness against numbers made up, and each part once on little, so that it does not rot."""

import json
from dataclasses import asdict

import pytest
import torch
import yaml
from snakemake.utils import update_config

from benchmarks import __main__, attacks, curvature, gpu, harness, planning, render, steps
from benchmarks.harness import Row, Spread, Table, Target, WrongContestant
from dprobust.attacks import Budget
from dprobust.models import networks as models
from dprobust.study import Study


def test_every_round_measures_every_contestant_each_time_first_another():
    calls = []

    def contestant(name, seconds):
        return lambda: calls.append(name) or seconds

    samples = harness.interleave({"a": contestant("a", 1.0), "b": contestant("b", 3.0)}, rounds=2, warm_up=1)
    assert calls == ["a", "b", "a", "b", "b", "a"]
    assert samples == {"a": [1.0, 1.0], "b": [3.0, 3.0]}


def test_ratios_are_of_the_same_round():
    """A machine that gets ten times slower in the last round changes medians, not ratios."""
    samples = {"ours": [1.0, 2.0, 30.0], "peer": [2.0, 4.0, 60.0]}
    assert harness.ratio(samples, "peer", "ours") == Spread(2.0, 2.0, 2.0)
    ours, peer = harness.rows(samples, 1000, "ours")
    assert ours.value.median == 2000 and ours.ratio.median == 1 and peer.ratio.median == 2 and peer.count == 3


@pytest.mark.parametrize(
    ("median", "high", "at_most", "verdict"),
    [(1.5, 1.58, True, "yes"), (1.5, 1.7, True, "barely"), (1.7, 1.8, True, "no"), (1.7, 1.8, False, "barely")],
)
def test_verdicts_count_the_worse_quartile(median, high, at_most, verdict):
    assert Target("", Spread(median, 1.4, high), 1.6, at_most).verdict() == verdict


def test_a_wrong_contestant_is_not_timed():
    model = steps.lenet()
    x, y = steps.batch(4)
    right = steps.fused(steps.lenet())
    assert steps.verified({"right": right}, model, x, y)
    wrong = right._replace(sums=lambda x, y: {name: 1.01 * g for name, g in right.sums(x, y).items()})
    with pytest.raises(WrongContestant, match="half is off by 1"):
        steps.verified({"half": wrong}, model, x, y)


def test_page_is_a_function_of_the_results():
    table = Table(
        "T",
        "ms",
        [Row("ours", Spread(1.0, 0.9, 1.25), 5, Spread(2.0, 2.0, 2.0))],
        "peer",
        [Target("t", Spread(1, 1, 1), 2)],
    )
    about = {"date": "D", "seconds": 3.0, "commit": "C", "versions": {"torch": "2"}}
    about |= {"cpu": "X", "cores": 2, "load": 0.1, "system": "S"}
    results = json.loads(json.dumps({"steps": {"about": about, "tables": [asdict(table)]}}))
    page = render.markdown(results)
    assert "| ours | 1 (0.9–1.25) | 2 | 5 |" in page and "| steps | t | 1 | ≤ 2 | yes |" in page
    assert "commit C." in page


def test_unknown_part(tmp_path, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["stepz"], tmp_path)
    assert "there is no part stepz" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.fixture
def lenet():
    """An untrained network, and some images."""
    random = torch.Generator().manual_seed(0)
    model = models.build({"name": "lenet"}, (1, 28, 28), 10)
    return model, torch.rand(6, 1, 28, 28, generator=random), torch.randint(10, (6,), generator=random)


@pytest.mark.parametrize(
    "table",
    [
        lambda *n: attacks.pgd(*n, steps=2, rounds=1),
        lambda *n: attacks.fgsm_grid(*n, rounds=1),
        lambda *n: attacks.eq4(*n, rounds=1),
        lambda *n: attacks.climbed(
            *n, "LeNet", 0.1, {"more": Budget(1.0, 2, 1, 1, 1, 1, 1), "less": Budget(1.0, 1, 1, 1, 1, 1, 1)}
        ),
        lambda *n: curvature.profiles(*n, naive=1, rounds=1),
        lambda *_: steps.lenet_steps(4, 1),
        lambda *_: steps.head_steps(4, 1),
        lambda *_: steps.kept(4, 1, 1),
        lambda *_: steps.poisson(4, 1, 1),
        lambda *_: steps.profile(4, 1),
    ],
    ids=["pgd", "fgsm", "eq4", "ladder", "curvature", "steps", "head", "kept", "poisson", "profile"],
)
def test_each_table_on_little(table, lenet):
    made = table(*lenet)
    assert len(made.rows) >= 2 and all(row.value.median >= 0 for row in made.rows)
    if made.reference:
        (reference,) = [row for row in made.rows if row.name == made.reference]
        assert reference.ratio == Spread(1, 1, 1)


def test_models_side_by_side_are_timed_where_there_is_a_gpu(capsys):
    if not torch.cuda.is_available():
        assert list(gpu.tables(quick=True)) == []
        assert "not measured: there is no CUDA device" in capsys.readouterr().out
    table = gpu.steps(torch.device("cpu"), (1, 2), inner=1, rounds=1, size=600)
    assert [row.name for row in table.rows] == [gpu.ALONE, "1 side by side", "2 side by side"]
    assert all(row.value.median > 0 for row in table.rows) and table.targets[0].value.median > 0


def test_the_grid_that_is_planned_is_a_study_of_so_many_runs():
    config = yaml.safe_load((planning.ROOT / "config.yaml").read_text())
    update_config(config, planning.grid(20))
    study = Study(config)
    assert len(study.trained("mnist")) == 20 and len(study.seeds) == planning.SEEDS
    metrics = {metric for display in study.displays.values() for metric, _, _ in display.measured}
    assert len(metrics) == len(planning.FIGURES + planning.TABLES + planning.PAGES) + 1 == 11
