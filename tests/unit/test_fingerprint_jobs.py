"""The roots that the plan gives to fingerprints. Oracle: what the jobs really call, as a profiler sees it."""

from pathlib import Path

import numpy as np
import torch
from helpers import ROOT
from tracing import called

from dprobust import sources
from dprobust.fingerprint import reached
from dprobust.plan import ARRAYS, MODEL, PRIVACY, RECORD, TRAINED, Plan
from dprobust.stages.account import account
from dprobust.stages.measure import measure
from dprobust.stages.show import show
from dprobust.stages.train import train
from dprobust.study import Study

SCRIPTS = ROOT / "workflow" / "scripts"


def test_the_plan_names_all_roots_of_its_jobs(tmp_path, monkeypatch):
    """Jobs as Snakemake runs them, on little data. What is imported by name at run time must be named as a root."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    examples = {name: random.integers(0, 256, (96, 28, 28), dtype=np.uint8) for name in ("train_images", "test_images")}
    labels = {name: np.arange(96) % 10 for name in ("train_labels", "test_labels")}
    np.savez("own.npz", **examples, **labels)
    few = {
        "clean": {},
        "fgsm": {"eps": [0.0, 0.1], "images": 8},
        "pgd": {"eps": [0.1], "steps": [2], "images": 8},
        "pgd_iterations": {"eps": [0.1], "alphas": [0.1], "steps": 2, "images": 8},
        "distances": {"images": 8, "deepfool_images": 4},
        "curvature": {"images": 4},
        "cross_sections": {"images": 1, "resolution": 5},
    }
    training = {"epochs": 1, "batch_size": 32}
    dataset = {"source": "own.npz", "model": {"name": "lenet"}, "metrics": few}
    dataset["training"] = {"sgd": training, "dpsgd": training}
    shown = {"dataset": "own", "runs": [{"epsilon": 8.0, "clip": 1.0}]}
    tables = {"attacked": {"shows": "pgd", **shown}, "hidden": {"shows": "privacy"}}
    plan = Plan(Study({"study": "s", "seeds": [0], "datasets": {"own": dataset}, "tables": tables}), SCRIPTS)
    named = []
    code = plan.code
    monkeypatch.setattr(plan, "code", lambda *roots: named.append(roots) or code(*roots))
    run = plan.study.displays["attacked"].runs[0][1].name
    about, cpu = {"dataset": "own", "run": run, "seed": "0"}, torch.device("cpu")

    def check(spec, stage, *arguments):
        script, *roots = named[-1]
        reaches = set(reached(str(SCRIPTS / f"{script}.py"), *roots))
        calls = called(stage, spec, *arguments)
        assert len(calls) > 5
        assert not calls - reaches, f"{script} of {roots} calls {sorted(calls - reaches)}"

    def paths(inputs):
        return {name: list(map(Path, p)) if isinstance(p, list) else Path(p) for name, p in inputs.items()}

    inputs = paths(plan.training_inputs("own", run, 0))
    sources.prepare("own.npz", inputs["train"].parent)
    model, record = (Path(plan.files(p, dataset="own", run=run, seed=0)[0]) for p in (MODEL, TRAINED))
    check(plan.train("own", run), train, inputs, model, record, about, cpu)
    for metric in few:
        files = [Path(plan.files(p, metric=metric, **about)[0]) for p in (RECORD, ARRAYS)]
        given = paths(plan.measure_inputs("own", run, 0, metric))
        check(plan.measure("own", run, metric), measure, given, *files, Path(f"{metric}.json"), about, cpu)
    spec = plan.account("own", run)
    check(spec, account, [record], Path(plan.files(PRIVACY, dataset="own", run=run)[0]), about)
    for display in plan.study.displays.values():
        outputs = paths(plan.shown(display))
        given = {name: p if isinstance(p, list) else [p] for name, p in paths(plan.show_inputs(display)).items()}
        check(plan.show(display.name), show, given, outputs)
