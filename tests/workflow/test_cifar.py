"""The CIFAR part of the workflow, whole, on tiny archives in the official format."""

import json

import cifar_archives
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, SMOKE, Workspace
from safetensors.numpy import load_file

RESULTS = "results/tiny"
DP = "dpsgd_sigma=1.0_clip=3.0"
RUNS = ["sgd", {"sigma": 1.0, "clip": 3.0}]
DEMO = ROOT / "presets" / "cifar-demo.yaml"
UNOFFICIAL = set(cifar_archives.ARCHIVES.values())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished run on 200 and 100 training images. Tests leave it as they find it."""
    workspace = Workspace(tmp_path_factory.mktemp("a CIFAR run"))
    mirror = workspace.folder / "mirror"
    sha256 = {
        name: {file: cifar_archives.write(name, mirror, n)}
        for (name, file), n in zip(cifar_archives.ARCHIVES.items(), (40, 100), strict=True)
    }
    rng = np.random.default_rng(0)
    np.savez(workspace.folder / "sets.npz", noise=rng.integers(0, 256, (40, 3, 32, 32), np.uint8))
    small = {"epochs": 2, "batch_size": 20}
    overlay = workspace.overlay(
        study="tiny",
        datasets={
            "cifar10": {
                "mirrors": [str(mirror)],
                "sha256": sha256["cifar10"],
                "train_size": 160,
                "test_size": 40,
                "model": {"channels": [4, 6], "hidden": [20]},
                "pretraining": {
                    "mirrors": [str(mirror)],
                    "sha256": sha256["cifar100"],
                    "train_size": 80,
                    "training": small,
                },
                "training": {"sgd": small | {"augment": ["flip"]}, "dpsgd": small},
                "metrics": {
                    "fgsm": {"images": None},
                    "distances": {"images": 20, "deepfool_images": 5},
                    "curvature": {"images": 5},
                    "pgd": {"images": 10, "alpha": 0.002, "eps": [0.01], "steps": [2]},
                    "cross_sections": {"images": 2, "resolution": 11, "half_width": 1.0},
                    "corruptions": {"sets": "sets.npz"},
                },
            },
        },
        figures={"sections": {"shows": "cross_sections", "dataset": "cifar10", "runs": RUNS}},
        tables={
            "attacked": {"shows": "pgd", "dataset": "cifar10", "runs": RUNS},
            "corrupted": {"shows": "corruptions", "dataset": "cifar10", "runs": RUNS},
        },
    )
    workspace.config = (DEMO, overlay)
    workspace.run(config=workspace.config)
    return workspace


def read(workspace, path):
    return json.loads((workspace.folder / RESULTS / path).read_text())


def test_everything_is_there(tiny):
    figures = {path.stem for path in (tiny.folder / RESULTS / "figures").glob("*.png")}
    assert figures == {"fig6a", "fig6b", "fig6c", "fig6_fgsm", "sections"}
    tables = {path.stem for path in (tiny.folder / RESULTS / "tables").glob("*.html")}
    assert tables == {"attacked", "corrupted", "accuracy", "privacy"}
    page = (tiny.folder / RESULTS / "report.html").read_text(encoding="utf-8")
    assert "pre-training" in page and "system-message" not in page and "{{" not in page
    assert "Nothing to be done" in tiny.run("--dry-run", config=tiny.config).output


def test_the_convolutions_are_frozen_and_the_heads_are_not(tiny):
    features = load_file(tiny.folder / RESULTS / "pretrained/cifar10/features.safetensors")
    assert set(features) == {
        "normalize.mean",
        "normalize.std",
        *(f"conv{i}.{p}" for i in (1, 2) for p in ("weight", "bias")),
    }
    sgd, private = (
        load_file(tiny.folder / RESULTS / f"models/cifar10/{run}/seed=0/model.safetensors") for run in ("sgd", DP)
    )
    for name, value in features.items():
        assert np.array_equal(sgd[name], value) and np.array_equal(private[name], value)
    assert not np.array_equal(sgd["fc1.weight"], private["fc1.weight"])


def test_features_are_those_of_the_images_in_use(tiny):
    from dprobust import arrays
    from dprobust.models import networks as models

    trained = read(tiny, "models/cifar10/sgd/seed=0/train.json")
    model = models.load(
        tiny.folder / RESULTS / "models/cifar10/sgd/seed=0/model.safetensors",
        trained["settings"]["model"],
        (3, 32, 32),
        10,
    )
    features, _ = models.split(model)
    for split, n in (("train", 160), ("test", 40)):
        images = arrays.load(tiny.folder / f"data/cifar10/{split}.npz").drawn(n, f"cifar10/{split}")
        found = arrays.load(tiny.folder / RESULTS / f"features/cifar10/images/{split}.npz")
        assert found.images.shape == (n, 6 * 25) and found.images.dtype == np.float32
        np.testing.assert_array_equal(found.labels, images.labels)
        with torch.no_grad():
            expected = features(models.unit(torch.from_numpy(images.images)))
        np.testing.assert_allclose(found.images, expected.numpy(), atol=1e-5)
    mirrored = arrays.load(tiny.folder / RESULTS / "features/cifar10/mirrored/train.npz").images
    images = arrays.load(tiny.folder / "data/cifar10/train.npz").drawn(160, "cifar10/train").images[..., ::-1]
    with torch.no_grad():
        expected = features(models.unit(torch.from_numpy(images.copy())))
    np.testing.assert_allclose(mirrored, expected.numpy(), atol=1e-5)


def test_metrics_go_through_the_whole_network(tiny):
    """The accuracy on images is that on features, which training reports; distances are in pixels."""
    for run in ("sgd", DP):
        record = pd.read_csv(tiny.folder / RESULTS / f"records/cifar10/{run}/seed=0/fgsm.csv")
        clean = record[(record["metric"] == "accuracy") & (record["eps"] == 0)]["value"]
        assert set(clean) == {read(tiny, f"models/cifar10/{run}/seed=0/train.json")["history"][-1]["test_accuracy"]}
        distances = pd.read_csv(tiny.folder / RESULTS / f"records/cifar10/{run}/seed=0/distances.csv")
        assert len(distances) == 20 and (distances["linf"] < distances["l2"]).all()
        curvature = pd.read_csv(tiny.folder / RESULTS / f"records/cifar10/{run}/seed=0/curvature.csv")
        assert (curvature.loc[curvature["rank"] == 10, "value"] == 0).all() and curvature["rank"].max() == 10


def test_what_is_not_official_is_marked_in_every_record(tiny):
    results = tiny.folder / RESULTS
    provenance = sorted(path for path in results.glob("**/*.json") if path.parent != results / "claims")
    assert len(provenance) == 1 + 2 + 2 * 7
    for path in provenance:
        assert set(json.loads(path.read_text())["unofficial_data"]) == UNOFFICIAL, path
    source = json.loads((tiny.folder / "data/cifar100/source.json").read_text())
    assert source["files"]["cifar-100-python.tar.gz"]["verified"] == "sha256 override"
    assert "unofficial data" in (tiny.folder / RESULTS / "report.html").read_text(encoding="utf-8")


def test_pretraining_is_reported(tiny):
    record = read(tiny, "pretrained/cifar10/pretrain.json")
    assert record["public"] == "cifar100" and record["settings"]["train_size"] == 80
    assert [row["epoch"] for row in record["history"]] == [1, 2]
    table = pd.read_csv(tiny.folder / RESULTS / "tables/accuracy.csv").set_index("run")
    assert table.loc["pretraining on cifar100", "mean"] == 100 * record["history"][-1]["test_accuracy"]
    assert (table.loc["sgd", "paper"], table.loc[DP, "paper"]) == (81.3, 70.1)


def test_privacy_is_that_of_the_head(tiny):
    table = pd.read_csv(tiny.folder / RESULTS / "tables/privacy.csv").set_index("run")
    assert set(table.loc[DP, "steps"]) == {16} and set(table.loc[DP, "sample_rate"]) == {20 / 160}


def test_other_corrupted_sets(tiny):
    table = pd.read_csv(tiny.folder / RESULTS / "tables/corrupted.csv")
    assert list(table["corruption"].unique()) == ["identity", "noise", "average of 1"]
    assert set(table.loc[table["corruption"] == "noise", "source"]) == {"sets.npz"}


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"training": {"sgd": {"lr": 0.02}}}, {"train": 1, "models": 1}),
        ({"pretraining": {"training": {"lr": 0.05}}}, {"pretrain": 1, "features": 3, "train": 2, "models": 1}),
        ({"pretraining": {"mirrors": ["elsewhere"]}}, {}),
    ],
    ids=["head", "pre-training", "mirror"],
)
def test_an_edit_reruns_what_it_touches(tiny, tmp_path, change, jobs):
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(json.dumps({"datasets": {"cifar10": change}}))
    assert tiny.planned("models", config=(*tiny.config, overlay)) == jobs


def test_mnist_goes_on_where_cifar_cannot_be_had(ready):
    """One line a file says what to do."""
    nowhere = ready.folder / "nowhere"
    nowhere.mkdir()
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    ready.environment = proxies | {"NO_PROXY": "", "no_proxy": "", "DPROBUST_MIRROR": str(nowhere)}
    both = ready.overlay(
        seeds=[0],
        datasets={"cifar10": {"model": {"name": "cifarnet"}}},
        figures={"both": {"shows": "fgsm", "dataset": "cifar10", "runs": ["sgd"]}},
    )
    model = "results/smoke/models/mnist/sgd/seed=0/model.safetensors"
    done = ready.run("--keep-going", model, "both", config=(SMOKE, both), check=False)
    assert done.returncode != 0 and "Traceback" not in done.output and (ready.folder / model).exists()
    lines = sorted(line.partition(" error: ")[2] for line in done.output.splitlines() if " error: " in line)
    assert [line.partition(":")[0] for line in lines] == sorted(UNOFFICIAL)
    assert all("by hand or set a mirror" in line and "cannot be reached" in line for line in lines)
