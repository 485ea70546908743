"""What is added without editing the repository, or by one folder."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from helpers import ROOT, Workspace

SETTINGS = '''"""Settings of the metric `contrast`."""

from dprobust.settings import EpsGrid, MetricSettings


class Metric(MetricSettings):
    """Accuracy at lower contrast."""

    factors: EpsGrid = [0.5, 1.0]
    """What pixels are multiplied by."""
'''
MEASURE = '''"""Accuracy at lower contrast."""

from torch import nn

from dprobust.inference import predict
from dprobust.measuring import Images, Measured
from dprobust.metrics.contrast.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Accuracy for each factor."""
    measured = Measured()
    for factor in settings.factors:
        measured.add("accuracy", predict(model, images.x * factor) == images.y, factor=factor)
    return measured
'''
DISPLAY = '''"""A figure of accuracy at lower contrast."""

from typing import ClassVar

from dprobust.runs import RunsDisplay


class Display(RunsDisplay):
    """Accuracy against contrast."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ("contrast",)
'''
SHOW = '''"""Accuracy against contrast."""

import pandas as pd
from matplotlib.figure import Figure

from dprobust.metrics.contrast.display import Display
from dprobust.showing import Given


def show(given: Given, settings: Display) -> tuple[Figure, pd.DataFrame]:
    """Mean accuracy of each run."""
    rows = given.records["contrast"].groupby(["run", "factor"], as_index=False)["value"].mean()
    figure = Figure()
    axes = figure.subplots()
    for run in given.runs:
        axes.plot(*rows[rows["run"] == run.name][["factor", "value"]].to_numpy().T, label=run.label())
    return figure, rows
'''


@pytest.fixture
def tiny(tmp_path, mnist):
    """A copy of the repository, with real MNIST."""
    for name in ("claims", "dprobust", "workflow", "profiles", "presets", "examples", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for name in ("train.npz", "test.npz", "source.json"):
        (tmp_path / "data" / "mnist" / name).symlink_to(mnist / name)
    return tmp_path


def run(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def test_a_metric_with_its_figure_is_one_folder(tiny):
    folder = tiny / "dprobust" / "metrics" / "contrast"
    folder.mkdir()
    files = {"settings": SETTINGS, "measure": MEASURE, "display": DISPLAY, "show": SHOW}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "__init__.py").touch()
    (folder / "caption.rst").write_text("**Contrast**, {{ snakemake.params.told.images.contrast }} images.\n")
    overlay = Workspace(tiny).overlay(
        study="added",
        seeds=[0],
        datasets={"mnist": {"metrics": {"contrast": {"images": 50}}}},
        figures={"by_contrast": {"shows": "contrast", "runs": ["sgd"]}},
    )
    run(tiny, "by_contrast", "--configfile", tiny / "presets" / "smoke.yaml", overlay)
    numbers = pd.read_csv(tiny / "results/added/figures/by_contrast.csv")
    assert list(numbers["factor"]) == [0.5, 1.0] and numbers["value"].between(0, 1).all()
    record = pd.read_csv(tiny / "results/added/records/mnist/sgd/seed=0/contrast.csv")
    assert list(record) == ["dataset", "run", "seed", "metric", "factor", "n", "value"] and set(record["n"]) == {50}


def test_the_example_of_an_extension(tiny):
    """Its own network, dataset, metric, figure, caption and reference values, from the folder the README names."""
    config = tiny / "examples" / "my-lab" / "study.yaml"
    run(tiny, "--configfile", config)
    page = (tiny / "results/my-lab/report.html").read_text(encoding="utf-8")
    assert "rotation_curve" in page and "system-message" not in page
    numbers = pd.read_csv(tiny / "results/my-lab/figures/rotation_curve.csv")
    assert not numbers.empty
    assert "Nothing to be done" in run(tiny, "-n", "--configfile", config)
    # Another place is another path, not another result.
    measure = tiny / "examples/my-lab/my_lab/metrics/rotation/measure.py"
    measure.write_text(measure.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")
    assert "Nothing to be done" in run(tiny, "-n", "--configfile", config)


def test_given_weights_are_reported_without_training(tiny):
    config = tiny / "presets" / "my-models.yaml"
    overlay = Workspace(tiny).overlay(
        datasets={
            "mnist": {
                "metrics": {
                    "fgsm": {"images": 50},
                    "pgd": {"images": 20},
                    "distances": {"images": 20, "deepfool_images": 5},
                    "curvature": {"images": 5},
                }
            }
        }
    )
    output = run(tiny, "--configfile", config, overlay)
    assert "Training" not in output and not (tiny / "results/my-models/models").exists()
    table = pd.read_csv(tiny / "results/my-models/tables/summary.csv")
    assert table["run"].nunique() >= 4 and (tiny / "results/my-models/report.html").exists()
    privacy = (tiny / "results/my-models/tables/privacy.html").read_text(encoding="utf-8")
    assert "as its maker states it" in privacy
    # The record of a network follows its file.
    weights = tiny / "examples" / "my-models" / "sgd.safetensors"
    weights.write_bytes((tiny / "examples" / "my-models" / "sgd.safetensors").read_bytes()[:-1] + b"\0")
    planned = run(tiny, "-n", "--configfile", config, overlay)
    assert "Measuring clean of weights=baseline" in planned and "Measuring clean of weights=private" not in planned


def test_as_a_module_of_another_workflow(ready):
    """In the folder of another workflow, whose rules have names of their own."""
    example = ROOT / "examples" / "module" / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", example, "--cores", "2", "--directory", ready.folder]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, (first.stdout + first.stderr)[-4000:]
    table = pd.read_csv(ready.folder / "results" / "module" / "gap.txt", sep="\t")
    assert table["eps"].min() == 0 and table["mean"].notna().all()
    again = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_trainings_side_by_side(ready):
    """One job for all trainings of a shape, with the files that each has alone; then nothing is left to be done."""
    overlay = ready.overlay(together=3, only=["fig2"])
    config = (ROOT / "presets" / "smoke.yaml", overlay)
    planned = ready.planned(config=config)
    assert {"train_together_0", "train_together_1"} <= planned.keys() and "train" not in planned
    ready.run("models", config=config)
    models = ready.folder / "results" / "smoke" / "models" / "mnist"
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(models.glob("*/*/train.json"))]
    assert [(record["run"], record["seed"], record["together"]) for record in records] == [
        ("dpsgd_sigma=1.3_clip=1.0", "0", 2),
        ("dpsgd_sigma=1.3_clip=1.0", "1", 2),
        ("sgd", "0", 2),
        ("sgd", "1", 2),
    ]
    assert len(list(models.glob("*/*/*.safetensors"))) == 4
    assert not {"train", "train_together_0", "train_together_1"} & ready.planned(config=config).keys()
    # Alone again, they are other jobs.
    assert ready.planned("models")["train"] > 0
