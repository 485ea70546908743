"""What an edit touches: keys of all jobs before and after, in a copy of the repository."""

import json
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

KEYS = """
import json, sys
from pathlib import Path
import yaml
from snakemake.utils import update_config
from dprobust import shown
from dprobust.plan import Plan, key
from dprobust.study import Study

config = yaml.safe_load(Path("config.yaml").read_text())
study = Study(config)
plan = Plan(study, Path("workflow/scripts"))
keys = {}
for dataset in study.datasets:
    for run in study.trained(dataset):
        keys[f"train/{dataset}/{run}"] = key(plan.train(dataset, run))
        keys[f"account/{dataset}/{run}"] = key(plan.account(dataset, run))
for display in study.displays.values():
    keys[f"show/{display.name}"] = key(plan.show(display.name))
    for metric, dataset, run, seed in shown.records(study, display):
        keys[f"measure/{metric}/{dataset}/{run.name}"] = key(plan.measure(dataset, run.name, metric))
keys["report"] = key(plan.report(Path("workflow/report/report.html.jinja")))
print(json.dumps(keys))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for name in ("claims", "dprobust", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.yaml", folder)
    return folder, keys(folder)


def keys(folder):
    command = [sys.executable, "-c", KEYS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changed(tree, path, old, new):
    """The keys that an edit of a file changes."""
    folder, before = tree
    file = folder / path
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r} to edit"
    try:
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        after = keys(folder)
    finally:
        file.write_text(text, encoding="utf-8")
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("dprobust/sources/download.py", "BACK_OFF = 0.5", "BACK_OFF = 0.7"),
        ("dprobust/sources/mnist.py", "https://ossci", "https://elsewhere"),
        ("dprobust/study.py", 'known = ", ".join(self.datasets)', 'known = ", ".join(list(self.datasets))'),
        ("dprobust/seeds.py", '"""A generator seeded', '"""Some generator seeded'),
        ("dprobust/training.py", "logger = ", "# a comment\nlogger = "),
    ],
    ids=["downloader", "mirror", "checks", "docstring", "comment"],
)
def test_edits_that_touch_nothing(tree, path, old, new):
    assert changed(tree, path, old, new) == set()


def test_another_model_touches_its_own_dataset_only(tree):
    touched = changed(tree, "dprobust/models/cifarnet/build.py", "def layers(", "EXTRA = 1\n\n\ndef layers(")
    assert touched == set()  # nothing reaches a new name
    touched = changed(tree, "dprobust/models/cifarnet/build.py", "nn.Flatten()", "nn.Flatten(1)")
    assert "train/cifar10/sgd" in touched and "measure/fgsm/cifar10/sgd" in touched
    assert not any("mnist/" in name for name in touched)


def test_a_metric_touches_its_own_records_and_what_shows_them(tree):
    touched = changed(tree, "dprobust/metrics/curvature/measure.py", "return ", "1 + 1\n    return ")
    assert {name.split("/")[1] for name in touched if name.startswith("measure/")} == {"curvature"}
    assert {name for name in touched if name.startswith("show/")} == {"show/claims", "show/fig5c", "show/fig6c"}
    assert not any(name.startswith(("train/", "account/")) for name in touched)


def test_a_figure_touches_itself(tree):
    touched = changed(tree, "dprobust/metrics/fgsm/show.py", "def show(", "def show(*_, **__): ...\n\n\ndef show(")
    assert touched == {"report", *(f"show/{name}" for name in ("fig2", "fig3a", "fig3b", "fig3c", "fig6_fgsm", "fig7"))}


def test_a_caption_touches_the_report(tree):
    assert changed(tree, "workflow/captions/fig2.rst", "e", "ee") == {"report"}


def test_scripts_and_their_helpers_count(tree):
    touched = changed(tree, "workflow/scripts/measure.py", "device(j", "device(1 and j")
    assert {name.split("/")[0] for name in touched} == {"measure", "show", "report"}
    assert not any(name in touched for name in ("show/mnist_c_auto", "show/privacy"))
    touched = changed(tree, "workflow/scripts/_job.py", "def device(", "def device(*_):\n    pass\n\n\ndef device(")
    assert any(name.startswith("train/") for name in touched)


def test_the_training_loop_touches_everything_that_follows(tree):
    touched = changed(tree, "dprobust/training.py", "model.train()", "model.train(True)")
    _, every = tree
    assert touched == set(every)  # the corruptions too: pessimal noise is made against a network trained here
