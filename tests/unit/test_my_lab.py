"""The example of an extension: its metric against SciPy and exact turns, its figure, its network, its data and plan."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import ROOT
from jinja2 import Environment, StrictUndefined
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from snakemake.utils import update_config
from torch import nn

from dprobust.errors import UserError
from dprobust.fingerprint import fingerprint, reached
from dprobust.measuring import Images
from dprobust.models.settings import FOLDERS
from dprobust.plan import Plan
from dprobust.recipe import Dpsgd, Sgd
from dprobust.runs import Entry, expand
from dprobust.settings import Facts
from dprobust.showing import Given
from dprobust.statistics import mean_interval
from dprobust.study import Study

LAB = ROOT / "examples" / "my-lab"
sys.path.append(str(LAB))

from my_lab.metrics.rotation.display import Display  # noqa: E402
from my_lab.metrics.rotation.measure import measure, rotated  # noqa: E402
from my_lab.metrics.rotation.settings import Metric  # noqa: E402
from my_lab.metrics.rotation.show import show  # noqa: E402
from my_lab.models.tiny.build import layers  # noqa: E402
from my_lab.models.tiny.settings import Model  # noqa: E402

PACKAGES = {"my_lab": LAB / "my_lab"}


@pytest.fixture
def x():
    return torch.rand(5, 2, 9, 14, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("angle", [-150.0, -33.0, 10.0, 45.0, 90.0])
def test_rotation_is_that_of_scipy(x, angle):
    # grid-constant: black beyond the edge, and pixels at the edge mixed with it.
    turned = ndimage.rotate(x.numpy(), angle, (3, 2), reshape=False, order=1, mode="grid-constant", prefilter=False)
    found = rotated(x, angle).numpy()
    assert np.allclose(found, turned, atol=1e-4)


def test_exact_turns(x):
    assert torch.allclose(rotated(x, 0), x, atol=1e-6)
    assert torch.allclose(rotated(x, 180), x.flip(2, 3), atol=1e-5)
    square = x[..., :9]
    assert torch.allclose(rotated(square, 90), square.rot90(1, (2, 3)), atol=1e-5)  # counterclockwise
    assert torch.allclose(rotated(square, -90), square.rot90(-1, (2, 3)), atol=1e-5)


class Corner(nn.Module):
    """Class k where corner k is the brightest: upper left, lower left, lower right, upper right."""

    def forward(self, x):
        half = x.shape[-1] // 2
        parts = [x[..., :half, :half], x[..., half:, :half], x[..., half:, half:], x[..., :half, half:]]
        return torch.stack([part.sum((1, 2, 3)) for part in parts], 1)


def test_a_known_network_sees_what_was_turned():
    x = torch.zeros(4, 1, 8, 8)
    x[0, 0, :3, :3] = x[1, 0, 5:, :3] = x[2, 0, 5:, 5:] = x[3, 0, :3, 5:] = 1
    y = torch.tensor([0, 1, 2, 0])  # the last is wrong without a turn, and right after one of 90 degrees
    images = Images(x, y, torch.arange(4), torch.arange(4))
    measured = measure(Corner(), images, Metric(angles=[-90.0, 0.0, 90.0]))
    assert [(row["metric"], row["angle"], row["n"], row["value"]) for row in measured.rows] == [
        ("accuracy", -90.0, 4, 0.0),
        ("accuracy", 0.0, 4, 0.75),
        ("accuracy", 90.0, 4, 0.25),
    ]
    assert measured.arrays["angle"].tolist() == [-90.0, 0.0, 90.0]
    assert measured.arrays["predicted"].dtype == np.uint8
    assert measured.arrays["predicted"].tolist() == [[3, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 0]]


@pytest.mark.parametrize("angles", [[], [0.0, 0.0], [10.0, 0.0], [181.0], [-181.0], [float("nan")]])
def test_angles_that_cannot_be(angles):
    with pytest.raises(ValidationError):
        Metric(angles=angles)


@pytest.fixture
def given():
    entries = TypeAdapter(list[Entry]).validate_python(["sgd", {"sigma": 1.0, "clip": 1.0}])
    runs = tuple(expand(entries, {"sgd": Sgd(), "dpsgd": Dpsgd()}, {"name": "tiny"}, 1e-4))
    arrays = {}
    for i, run in enumerate(runs):
        for seed in (0, 1):
            right = np.arange(100) < np.array([[48], [50]]) + 20 * i + 10 * seed
            arrays["rotation", "digits", run.name, seed] = {
                "angle": np.array([-20.0, 0.0]),
                "predicted": right.astype(np.uint8),
                "label": np.ones(100, np.uint8),
            }
    privacy = pd.DataFrame({"run": [runs[1].name], "delta": [1e-4], "epsilon": [4.56]})
    return Given(runs=runs, arrays=arrays, privacy=privacy, note="an example")


def display(**more):
    return Display(shows="rotation", dataset="digits", title="A title", runs=["sgd"], **more)


def test_the_figure_shows_its_numbers(given):
    figure, numbers = show(given, display())
    known = [
        mean_interval(np.array([np.arange(100) < n + 10 * seed for seed in (0, 1)], float), within=(0, 1))
        for n in (48, 50, 68, 70)
    ]
    assert numbers.to_dict("list") == {
        "run": ["sgd"] * 2 + [given.runs[1].name] * 2,
        "angle": [-20.0, 0.0] * 2,
        "mean": pytest.approx([0.53, 0.55, 0.73, 0.75]),
        "low": pytest.approx([low for _, low, _ in known]),
        "high": pytest.approx([high for *_, high in known]),
        "seeds": [2] * 4,
    }
    (axes,) = figure.axes
    for line, expected in zip(axes.lines, ([0.53, 0.55], [0.73, 0.75]), strict=True):
        assert line.get_xdata().tolist() == [-20.0, 0.0] and line.get_ydata() == pytest.approx(expected)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("4.56" in text for text in texts) and not any("reference" in text for text in texts)


def test_reference_values_are_marked(given):
    paper = pd.DataFrame({"angle": [0], "accuracy": [0.9]})
    told = Given(runs=given.runs, arrays=given.arrays, privacy=given.privacy, paper=paper)
    figure, numbers = show(told, display(paper="a.csv", reference="of a friend"))
    line = figure.axes[0].lines[-1]
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0], [0.9])
    assert figure.legends[0].get_texts()[-1].get_text() == "of a friend"
    assert len(numbers) == 4
    wrong = Given(runs=given.runs, arrays=given.arrays, paper=paper.drop(columns="angle"))
    with pytest.raises(UserError, match="^a.csv: no column angle"):
        show(wrong, display(paper="a.csv"))


@pytest.mark.parametrize("shape", [(1, 14, 14), (3, 3, 8)])
def test_the_network(shape):
    named = layers(Model(channels=4, hidden=6), shape, 5, dropout=0.5)
    assert list(named) == ["conv", "relu1", "flatten", "dropout", "hidden", "relu2", "logits"]
    assert "dropout" not in layers(Model(), shape, 5)
    assert nn.Sequential(named)(torch.rand(2, *shape)).shape == (2, 5)
    Model().fits(Facts(shape=shape))


def test_the_network_refuses_what_it_cannot_take():
    with pytest.raises(Exception, match="tiny takes images of 3 x 3 pixels or more, found 2 x 9"):
        Model().fits(Facts(shape=(1, 2, 9)))


def test_the_data_and_what_is_stated_of_it():
    assert (LAB / "digits.npz").stat().st_size < 200_000
    with np.load(LAB / "digits.npz", allow_pickle=False) as file:
        arrays = dict(file)
    for part, n in (("train", 1500), ("test", 300)):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        assert images.dtype == np.uint8 and images.shape == (n, 14, 14)
        assert set(labels) == set(range(10)) and np.bincount(labels).min() > n / 20
    paper = pd.read_csv(LAB / "my_lab" / "paper" / "nearest_mean.csv")
    flat = {part: arrays[f"{part}_images"].reshape(-1, 196) / 255 for part in ("train", "test")}
    means = np.stack([flat["train"][arrays["train_labels"] == k].mean(0) for k in range(10)])
    nearest = ((flat["test"][:, None] - means) ** 2).sum(2).argmin(1)
    stated = paper.set_index("angle")["accuracy"]
    assert stated[0] == pytest.approx((nearest == arrays["test_labels"]).mean(), abs=1 / 300)
    assert stated.index.tolist() == Metric().angles and stated[0] == stated.max()


def test_the_data_is_that_of_mnist(mnist):
    """Every pixel is the mean of four of an image of MNIST, with its label."""
    with np.load(LAB / "digits.npz") as digits, np.load(mnist / "test.npz") as whole:
        images = whole["images"].reshape(-1, 14, 2, 14, 2).mean((2, 4)).round().astype(np.uint8)
        known = {image.tobytes(): label for image, label in zip(images, whole["labels"], strict=True)}
        found = [known.get(image.tobytes()) for image in digits["test_images"]]
        assert found == digits["test_labels"].tolist()


def test_planning_needs_no_torch():
    names = "my_lab.metrics.rotation.settings, my_lab.metrics.rotation.display, my_lab.models.tiny.settings"
    path, heavy = str(LAB), "{'torch', 'matplotlib'}"
    code = f"import sys; sys.path.append({path!r}); import {names}; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_an_edit_touches():
    measured = reached("my_lab.metrics.rotation.measure:measure", packages=PACKAGES)
    assert {"my_lab.metrics.rotation.measure:rotated", "dprobust.inference:predict"} <= set(measured)
    assert not [name for name in measured if ".show:" in name or ".display:" in name]
    shown = reached("my_lab.metrics.rotation.show:show", packages=PACKAGES)
    assert not [name for name in shown if ".measure:" in name or "inference" in name]
    assert len(fingerprint("my_lab.models.tiny.build", packages=PACKAGES)) == 16


def test_the_study_names_what_there_is():
    study = yaml.safe_load((LAB / "study.yaml").read_text())
    entry = study["datasets"]["digits"]
    Metric(**entry["metrics"]["rotation"]), Model(**entry["model"])
    Display(**study["figures"]["rotation_curve"])
    assert [ROOT / folder for folder in study["extensions"]] == list(PACKAGES.values())
    assert (ROOT / entry["source"]).is_file()
    assert (LAB / "my_lab" / "paper" / study["figures"]["rotation_curve"]["paper"]).is_file()


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = FOLDERS[:]
    config = yaml.safe_load(Path("config.yaml").read_text())
    update_config(config, yaml.safe_load((LAB / "study.yaml").read_text()))
    yield Plan(Study(config), ROOT / "workflow" / "scripts")
    FOLDERS[:] = before


def test_the_study_is_planned(plan):
    figure = plan.study.displays["rotation_curve"]
    runs = [run.name for _, run in figure.runs]
    assert runs == ["sgd", "dpsgd_sigma=1.0_clip=1.0"]
    assert plan.measure("digits", "sgd", "rotation")["package"] == "my_lab.metrics.rotation"
    assert plan.train("digits", "sgd")["model"]["name"] == "tiny"
    assert plan.caption(figure) == LAB / "my_lab" / "metrics" / "rotation" / "caption.rst"
    assert plan.show("rotation_curve")["package"] == "my_lab.metrics.rotation"


def test_the_caption_is_filled(plan):
    told = plan.told(plan.study.displays["rotation_curve"])
    text = plan.caption(plan.study.displays["rotation_curve"]).read_text()
    snakemake = SimpleNamespace(params=SimpleNamespace(told=told))
    filled = Environment(undefined=StrictUndefined).from_string(text).render(snakemake=snakemake)
    assert "Accuracy on 300 digits test images" in filled
    assert "2 seed(s), epochs: 20 (SGD), 20 (DP-SGD)" in filled and "nearest class mean" in filled
