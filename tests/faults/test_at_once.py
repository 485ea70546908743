"""Several runs at a time, and jobs that outlive their run."""

import os
import signal
from contextlib import suppress

import pytest
from clones import HOOKS, SGD, copied, kill, members, wait_until

MODEL = SGD / "model.safetensors"


@pytest.fixture
def long(done):
    """A training that is at work for as long as a test takes."""
    for path in done.path(SGD).glob("[!.]*"):
        path.unlink()
    return done.overlay("long.yaml", datasets={"digits": {"training": {"sgd": {"epochs": 20_000}}}})


@pytest.mark.parametrize("flock", [True, False], ids=["flock", "no flock"])
def test_two_runs_in_a_folder(done, whole, long, flock):
    """The second is refused; the first, killed, does not keep the next one out."""
    if not flock:
        done.environment = {"PYTHONPATH": str(HOOKS), "FAULTS_NO_FLOCK": "1"}
        done.path(".snakemake/run.lock").unlink()  # of a file system that has it
    first = done.start(MODEL, config=[long])
    try:
        assert wait_until(done.path(SGD, "checkpoint.safetensors").exists, first)
        second = done.run(check=False)
        assert second.returncode != 0 and "Traceback" not in second.output
        (line,) = [line for line in second.output.splitlines() if "another run is at work" in line]
        assert str(done.path(".snakemake/run.lock")) in line
    finally:
        kill(first)
    done.run()
    assert done.contents() == whole.made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=lambda number: number.name)
def test_a_run_that_dies_without_its_jobs(done, whole, long, number):
    """Its training, of other settings, would write its model over that of the next run."""
    first = done.start(MODEL, config=[long])
    try:
        assert wait_until(done.path(SGD, "checkpoint.safetensors").exists, first)
        os.kill(first.pid, number)
        first.wait()
        assert members(first.pid), "the training is to be at work"
        second = done.run()
        assert "Stopped jobs of an earlier run" in second.output and not members(first.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    assert done.contents() == whole.made


def test_two_clones_that_share_data(fresh, whole, tmp_path):
    """The second's folders of data/ are links to those of the first; both get, make and use them at the same time."""
    other = copied(fresh, tmp_path / "other")
    for name in ("digits-6f5b9816", "brightness"):
        fresh.path("data", name).mkdir()
        other.path("data", name).symlink_to(fresh.path("data", name))
    targets = [MODEL, "data/brightness/even.npz"]
    runs = [clone.start(*targets) for clone in (fresh, other)]
    try:
        assert [run.wait(timeout=300) for run in runs] == [0, 0]
    finally:
        for run in runs:
            kill(run)
    for clone in (fresh, other):
        made = clone.contents()
        assert str(MODEL) in made and made.items() <= whole.made.items()
