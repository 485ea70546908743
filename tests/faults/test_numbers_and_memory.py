"""Trainings that diverge, and memory that does not suffice."""

import resource
import subprocess
import sys

from clones import RESULTS, SGD, errors

DP = RESULTS / "models/digits/dpsgd_sigma=1.0_clip=1.0/seed=0"


def test_a_training_that_diverges_is_a_line_and_others_go_on(fresh, whole):
    wrong = fresh.overlay(datasets={"digits": {"training": {"sgd": {"lr": 1e30}}}})
    targets = [SGD / "model.safetensors", DP / "model.safetensors"]
    run = fresh.run("--keep-going", *targets, config=[wrong], check=False)
    assert run.returncode != 0 and "Traceback" not in run.output
    assert set(errors(run.output)) == {
        "error: training diverged in epoch 1: parameters or gradients are not finite; use a smaller lr"
    }
    assert not fresh.path(SGD).exists() or list(fresh.path(SGD).iterdir()) == []
    made = fresh.contents()
    assert made[str(DP / "model.safetensors")] == whole.made[str(DP / "model.safetensors")]


def test_a_batch_that_does_not_fit_is_computed_in_parts(fresh):
    """Per-example gradients of a wide network in one large batch, where the address space holds a part of them."""
    asked = {"epochs": 1, "batch_size": 512, "engine": "functional"}
    big = fresh.overlay(
        datasets={"digits": {"model": {"hidden": 1024}, "training": {"dpsgd": asked}, "train_size": 1024}}
    )
    told = subprocess.run(
        [sys.executable, "-c", "import torch; print(open('/proc/self/status').read().split('VmPeak:')[1].split()[0])"],
        capture_output=True,
        text=True,
        check=True,
    )
    limit = int(told.stdout) * 1024 + 1_000_000_000
    command = fresh.command(DP / "model.safetensors", config=[big])
    done = subprocess.run(
        command,
        cwd=fresh.folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    log = fresh.lines("train/digits/dpsgd_sigma=1.0_clip=1.0/seed=0.log")
    assert any("out of memory: batches are computed in" in line for line in log)
