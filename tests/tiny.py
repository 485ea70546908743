"""A finished study that takes seconds: its jobs are called one after the other, as the workflow's scripts call them."""

import contextlib
import os
from pathlib import Path

import yaml
from helpers import ROOT

from dprobust import inventory, seals
from dprobust.plan import Plan
from dprobust.stages.account import account
from dprobust.stages.measure import measure
from dprobust.stages.report import report
from dprobust.stages.show import show
from dprobust.stages.train import train
from dprobust.study import Study
from workflow import snakemakes

TINY = {
    "study": "tiny",
    "label": "tiny",
    "seeds": [0, 1],
    "only": ["fig2", "table1", "accuracy", "claims"],
    "claims": {"measured_only": True},
    "datasets": {
        "cifar10": None,
        "mnist": {
            "train_size": 512,
            "test_size": 100,
            "training": {"sgd": {"epochs": 1}, "dpsgd": {"epochs": 1}},
            "metrics": {"fgsm": {"eps": [0.0, 0.12]}, "pgd": {"images": 16, "keep_images": 8}},
        },
    },
}


@contextlib.contextmanager
def working_in(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def plan_of(overlay):
    return Plan(Study(snakemakes.config([overlay])), ROOT / "workflow" / "scripts")


def make(job, plan):
    """Do a job, and seal what it makes."""
    import torch

    cpu, outputs = torch.device("cpu"), [Path(path) for path in job.outputs]
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    about = dict(job.about)
    if job.stage == "train":
        inputs = {name: Path(path) for name, path in plan.training_inputs(*about.values()).items()}
        train(job.spec, inputs, *outputs, about, cpu)
    elif job.stage == "account":
        account(job.spec, [Path(path) for path in job.inputs], *outputs, about)
    elif job.stage == "measure":
        inputs = {name: Path(path) for name, path in plan.measure_inputs(*about.values()).items()}
        metric = about.pop("metric")
        assert metric in job.outputs[0]
        measure(job.spec, inputs, *outputs, about, cpu)
    else:
        display = plan.study.displays[about["display"]]
        inputs = plan.show_inputs(display)
        listed = {name: [Path(p) for p in ([v] if isinstance(v, str) else v)] for name, v in inputs.items()}
        show(job.spec, listed, {path.suffix[1:]: path for path in outputs})
    seals.seal(outputs)


def made(folder, data, **changes):
    """The study, finished in a folder, with Snakemake's knowledge of it; its overlay and plan."""
    (overlay := folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | changes), encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data" / "mnist").symlink_to(data)
    with working_in(folder):
        plan = plan_of(overlay)
        jobs = [*inventory.made(plan), *inventory.shown(plan)]
        for job in jobs:
            make(job, plan)
            benchmark(job)
        template = ROOT / "workflow" / "report" / "report.html.jinja"
        captions = [plan.caption(display) for display in plan.study.displays.values()]
        report(plan.report(template), template, captions, Path("results/tiny/report.html"))
        snakemakes.remember(jobs, {job.name: {} for job in jobs})
    return overlay, plan


def benchmark(job):
    """As Snakemake writes it; a second of training, half a second of measuring."""
    if job.stage not in ("train", "measure"):
        return
    stage = job.about.get("metric", job.stage)
    path = Path("results/tiny/benchmarks", stage, "{dataset}/{run}/seed={seed}.tsv".format(**job.about))
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = 1.0 if job.stage == "train" else 0.5
    path.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t600\t{seconds / 2}\n")
