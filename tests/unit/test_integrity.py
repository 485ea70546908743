"""The files of a study, and whether they are whole. Oracle: files made here, and the rules' patterns."""

from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from snakemake.utils import update_config

from dprobust.integrity import data, examine, lost, results
from dprobust.plan import Plan
from dprobust.seals import seal
from dprobust.study import Study


@pytest.fixture
def plan(tmp_path, monkeypatch):
    config = {}
    for path in (ROOT / "config.yaml", ROOT / "presets" / "cifar-demo.yaml"):
        update_config(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    return Plan(Study(config), ROOT / "workflow" / "scripts")


def test_every_kind_of_file_is_asked_for(plan):
    found = results(plan)
    assert len(found) == len(set(found)) and all(path.startswith("results/cifar-demo/") for path in found)
    run = "cifar10/dpsgd_sigma=1.0_clip=3.0"
    for file in (
        "pretrained/cifar10/features.safetensors",
        "pretrained/cifar10/pretrain.json",
        "features/cifar10/images/train.npz",
        "features/cifar10/images/test.npz",
        "features/cifar10/mirrored/train.npz",
        f"models/{run}/seed=0/model.safetensors",
        f"models/{run}/seed=0/train.json",
        f"records/{run}/privacy.csv",
        *(f"records/{run}/seed=0/fgsm.{suffix}" for suffix in ("csv", "npz", "json")),
        *(f"figures/fig6a.{suffix}" for suffix in ("pdf", "png", "csv")),
        *(f"tables/accuracy.{suffix}" for suffix in ("csv", "html", "tex")),
        "report.html",
    ):
        assert f"results/cifar-demo/{file}" in found
    assert data(plan) == [f"data/{name}/{split}.npz" for name in ("cifar10", "cifar100") for split in ("train", "test")]


def test_states(tmp_path):
    names = ("whole", "broken", "unsealed", "missing")
    paths = {name: tmp_path / name / "file.csv" for name in names}
    for path in paths.values():
        path.parent.mkdir()
        path.write_text("1")
    seal([paths["whole"], paths["broken"], paths["missing"]])
    paths["broken"].write_text("2")
    paths["missing"].unlink()
    found = examine(map(str, paths.values()))
    for name in names:
        assert getattr(found, name) == [paths[name]]


def test_lost_files(plan, tmp_path, monkeypatch):
    """Those with a seal, in layers; data only where something is to be made."""
    monkeypatch.chdir(tmp_path)
    made = [Path(path) for path in (*results(plan), *data(plan))]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert lost(plan) == []
    known = Path("data/cifar10/test.npz")
    seal([known])
    known.unlink()
    assert lost(plan) == []
    models = [path for path in made if path.name == "model.safetensors"][:2]
    others = [path for path in made if path.name in ("fgsm.npz", "report.html", "features.safetensors")]
    seal([models[0], *others])
    for path in (*models, *others):
        path.unlink()
    features = "results/cifar-demo/pretrained/cifar10/features.safetensors"
    assert lost(plan) == [[str(known)], [features], [str(models[0])]]
