"""What a target asks for, seen by dry runs."""

import subprocess
import sys

import pytest
from helpers import ROOT

PAPER = ()
DEMO = (ROOT / "presets" / "demo.yaml",)


@pytest.mark.parametrize(("figure", "runs"), [("fig2", 2), ("fig3a", 6), ("fig3b", 7), ("fig3c", 5), ("fig7", 5)])
def test_a_figure_asks_for_its_ancestors_only(ready, figure, runs):
    """In the paper's study: its runs with five seeds, their FGSM and attack check, their privacy, and itself."""
    jobs = ready.planned(figure, config=PAPER)
    assert jobs == {"train": 5 * runs, "measure": 2 * 5 * runs, "account": runs - 1, figure: 1}


@pytest.mark.parametrize(
    ("figure", "metrics"),
    [("fig1", 1), ("fig4", 2), ("fig5a", 1), ("fig5b", 1), ("fig5c", 1)],  # accuracy under attack: and its check
)
def test_a_figure_asks_for_its_metric_only(ready, figure, metrics):
    assert ready.planned(figure, config=PAPER) == {"train": 10, "measure": 10 * metrics, "account": 1, figure: 1}


def test_a_figure_by_its_file(ready):
    by_name = ready.planned("fig2", config=DEMO)
    assert ready.planned("results/demo/figures/fig2.pdf", config=DEMO) == by_name
    assert by_name == {"train": 2, "measure": 4, "account": 1, "fig2": 1}


@pytest.mark.parametrize(
    ("target", "jobs"),
    [
        ("models", {"get": 2, "pretrain": 1, "features": 3, "train": 95, "models": 1}),
        ("fig6c", {"get": 2, "pretrain": 1, "features": 3, "train": 10, "measure": 10, "account": 1, "fig6c": 1}),
        (
            "tables",
            {"get": 2, "pretrain": 1, "features": 3, "train": 95, "account": 19, "prepare": 2, "tables": 1}
            # without attack for every model, PGD, ladder and attack check for 10, corruptions for 30
            | {"measure": 95 + 3 * 10 + 30, "accuracy_table": 1, "privacy_table": 1, "table1": 1, "table2": 1}
            | {"ladder": 1},
        ),
        ("accuracy_table", {"get": 2, "pretrain": 1, "features": 3, "train": 95, "measure": 95, "accuracy_table": 1}),
        ("privacy_table", {"get": 2, "pretrain": 1, "features": 3, "train": 95, "account": 19, "privacy_table": 1}),
        ("table1", {"train": 10, "measure": 20, "table1": 1}),
        ("table2", {"train": 30, "prepare": 2, "measure": 30, "table2": 1}),
        (
            "claims",  # FGSM, ladder of 17 runs, corruptions of 6, distances, curvature, no attack of 4, the rest of 2
            {"get": 2, "pretrain": 1, "features": 3, "prepare": 2, "train": 95, "account": 1, "claims": 1}
            | {"measure": 5 * (2 * 17 + 6 + 3 * 4 + 3 * 2)},
        ),
        ("results/paper/figures/mnist_c_auto.pdf", {"prepare": 2, "mnist_c_auto": 1}),
    ],
)
def test_stages_of_the_paper(ready, target, jobs):
    assert ready.planned(target, config=PAPER) == jobs


def test_data_comes_first(empty):
    assert empty.planned("models", config=DEMO) == {"get": 1, "train": 9, "models": 1}


def test_everything_by_default(ready):
    jobs = ready.planned(config=PAPER)
    assert jobs["train"] == 95 and jobs["report"] == jobs["all"] == 1
    # without attack and FGSM for every model; ladder and attack check for MNIST's 85; corruptions for 30; distances and
    # curvature for 20; four more for 10
    assert jobs["measure"] == 2 * 95 + 2 * 85 + 30 + 2 * 20 + 4 * 10


def test_a_figure_of_ones_own(ready):
    mine = ready.overlay(figures={"mine": {"shows": "fgsm", "runs": ["sgd", {"sigma": 0.5, "clip": 4}]}})
    jobs = ready.planned("mine", config=(ROOT / "presets" / "smoke.yaml", mine))
    # FGSM of all; the attack check of the run that the study's own page has, too
    assert jobs == {"train": 4, "measure": 4 + 2, "account": 1, "mine": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [1]}, "config: (top level): unknown key 'seed'; did you mean 'seeds'?"),
        ({"datasets": {"mnist": {"training": {"sgd": {"lr": "high"}}}}}, 'training.sgd.lr: found "high"'),
        ({"datasets": {"mnist": {"metrics": {"pdg": {}}}}}, "datasets.mnist.metrics: unknown key 'pdg'"),
        ({"datasets": {"mnist": {"train_size": 9}}}, "batch_size: 256 is more than the 9 training examples"),
        ({"tables": {"table1": {"paper": "tabel1.csv"}}}, "tables.table1.paper: no file tabel1.csv in workflow/paper"),
        ({"figures": {"fig2": {"runs": [{"sigma": -1, "clip": 1}]}}}, "runs[0].sigma: found -1, must be at least 0"),
    ],
)
def test_config_errors_are_one_line(empty, change, message):
    done = empty.run("--dry-run", config=(empty.overlay(**change),), check=False)
    assert done.returncode != 0
    (line,) = [line for line in done.output.splitlines() if message in line]
    assert "Traceback" not in done.output and len(done.output.splitlines()) < 8


def test_lint_and_format():
    for command in (
        ["snakemake", "--lint"],
        ["snakefmt", "--check", "Snakefile", "workflow/rules"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_snakefile_is_short_and_imports_no_torch():
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 60
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert "import torch" not in path.read_text()
