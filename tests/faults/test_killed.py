"""Runs that are killed or told to stop, wherever they are: the next call goes on and ends with the same bytes."""

import os
import random
import signal
from contextlib import suppress
from subprocess import TimeoutExpired

import pytest
from clones import HOOKS, RECORDS, SGD, ends, kill, wait_until

MOMENTS = (
    "after public-79a3a00d:train.npz",
    "before public-79a3a00d:.train.npz.sha256",
    "after brightness:even.npz",
    "after tuned:features.safetensors",
    "before tuned:.features.safetensors.sha256",
    "after images:train.npz",
    "after seed=0:checkpoint.safetensors",
    "before seed=0:model.safetensors",
    "after seed=0:model.safetensors",
    "after seed=0:.model.safetensors.sha256",
    "before sgd:privacy.csv",
    "after sgd:privacy.csv",
    "after seed=0:fgsm.csv",
    "before seed=0:fgsm.json",
    "before seed=0:.fgsm.csv.sha256",
    "after figures:plane.pdf",
    "before figures:plane.csv",
    "after tables:lifted.html",
    "before pages:fragile.html",
    "before faults:report.html",
    "after faults:report.html",
    "after faults:.report.html.sha256",
)
"""Folder and name of a file that takes its place."""


def test_kill_9_where_files_take_their_places(fresh, whole, tmp_path):
    moments = tmp_path / "moments"
    moments.mkdir()
    for moment in MOMENTS:
        (moments / moment).touch()
    fresh.environment = {"PYTHONPATH": str(HOOKS), "FAULTS_KILL": str(moments)}
    kills = 0
    while (process := fresh.start()).wait(timeout=600) == -signal.SIGKILL:
        ends(process)
        kills += 1
    assert process.returncode == 0 and kills <= len(MOMENTS)
    assert [path.name for path in moments.iterdir()] == [] and kills > len(MOMENTS) / 2
    assert fresh.contents() == whole.made
    assert "Nothing to be done" in fresh.run().output


@pytest.mark.parametrize("seed", [0, 1])
def test_kill_9_at_random_moments(fresh, whole, seed):
    """Each run is killed some files on, at most a second and a half after the last of them."""
    rng, kills = random.Random(seed), 0
    while True:
        process = fresh.start()
        goal = fresh.count() + rng.randint(8, 30)
        alive = wait_until(lambda goal=goal: fresh.count() >= goal, process)
        if not alive:
            break
        with suppress(TimeoutExpired):
            process.wait(timeout=rng.uniform(0, 1.5))
        kill(process)
        kills += 1
    assert process.returncode == 0 and kills >= 3
    assert fresh.contents() == whole.made
    assert "Nothing to be done" in fresh.run().output


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_told_to_stop_in_a_training(done, whole, name):
    """By Ctrl-C, by a cluster, by a terminal that is closed: all processes end soon, and nothing is lost."""
    for path in done.path(SGD).glob("[!.]*"):
        path.unlink()
    long = done.overlay(datasets={"digits": {"training": {"sgd": {"epochs": 20_000}}}})
    checkpoint = done.path(SGD, "checkpoint.safetensors")
    process = done.start(SGD / "model.safetensors", config=[long])
    try:
        assert wait_until(checkpoint.exists, process)
        os.killpg(process.pid, getattr(signal, name))
        ends(process)
        assert process.returncode != 0
    finally:
        kill(process)
    assert checkpoint.exists() and not done.path(SGD, "model.safetensors").exists()
    done.run()
    assert done.contents() == whole.made


def test_a_head_told_to_stop_lets_its_jobs_end(done, whole):
    """SIGTERM to Snakemake alone: the training at work ends, nothing else is begun."""
    for path in [*done.path(SGD).glob("[!.]*"), *done.path(RECORDS).glob("lifted.*")]:
        path.unlink()
    slow = done.overlay(datasets={"digits": {"training": {"sgd": {"epochs": 60}}}})
    process = done.start(RECORDS / "lifted.csv", config=[slow])
    try:
        assert wait_until(done.path(SGD, "checkpoint.safetensors").exists, process)
        process.terminate()
        ends(process, 300)
    finally:
        kill(process)
    assert done.path(SGD, "model.safetensors").exists() and not done.path(RECORDS, "lifted.csv").exists()
    done.run()
    assert done.contents() == whole.made
