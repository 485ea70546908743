"""A full disk, and folders that cannot be written: a line that names the path, and with room the run goes on."""

import os
import subprocess
from contextlib import contextmanager

import pytest
from clones import RECORDS, RESULTS, SGD, errors

PAGE = 4096


@contextmanager
def mounted(folder, size):
    """A small file system of its own in a folder, which is made."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if (done := subprocess.run(command, capture_output=True, text=True)).returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, pages):
    """Leave room for so many pages."""
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    (folder / "ballast").write_bytes(b"\0" * (free - pages * PAGE))


@contextmanager
def results_on_a_small_disk(clone):
    """The clone's results on a file system of their own; what is there stays."""
    results = clone.path("results")
    results.rename(clone.path("kept"))
    with mounted(results, "16m"):
        subprocess.run(["cp", "-a", f"{clone.path('kept')}/.", str(results)], check=True)
        yield results


STAGES = {
    "training": ([SGD / "model.safetensors", SGD / "train.json"], SGD),
    "measuring": ([RECORDS / f"cross_sections.{suffix}" for suffix in ("csv", "npz", "json")], RECORDS),
    "rendering": ([RESULTS / f"figures/curves.{suffix}" for suffix in ("pdf", "png", "csv")], RESULTS / "figures"),
    "report": ([RESULTS / "report.html"], RESULTS),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk(done, whole, stage):
    files, folder = STAGES[stage]
    with results_on_a_small_disk(done) as results:
        for file in files:
            done.path(file).unlink()
        fill(results, 2)  # room for the first lines of a log, not for what is made
        run = done.run(files[0], check=False)
        assert run.returncode != 0 and "Traceback" not in run.output
        (line,) = set(errors(run.output))
        assert line.startswith(f"error: [Errno 28] No space left on device: '{folder}/")
        assert not list(done.path(folder).glob(".*.tmp"))
        (results / "ballast").unlink()
        done.run()
        assert done.contents() == whole.made


def test_a_full_data_folder(fresh):
    with mounted(fresh.path("data", "digits-6f5b9816"), "64k") as data:
        run = fresh.run("data/digits-6f5b9816/train.npz", check=False)
        assert run.returncode != 0 and "Traceback" not in run.output
        (line,) = set(errors(run.output))
        assert line == "error: [Errno 28] No space left on device: 'data/digits-6f5b9816/train.npz'"
        assert not list(data.glob("*.npz"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(data)], check=True)
        fresh.run("data/digits-6f5b9816/train.npz")


@pytest.mark.parametrize("top", ["results", "data"])
def test_a_folder_that_cannot_be_written(fresh, top):
    folder = fresh.path(top)
    target = {"results": SGD / "model.safetensors", "data": "data/brightness/even.npz"}[top]
    if os.geteuid() != 0:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        run = fresh.run(target, check=False)
        folder.chmod(0o755)
    else:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        with mounted(folder, "1m"):
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            run = fresh.run(target, check=False)
    assert run.returncode != 0 and "Traceback" not in run.output
    (line,) = [line for line in run.output.splitlines() if "ead-only file system" in line or "ermission denied" in line]
    assert f"{top}/" in line


def test_results_that_cannot_be_written_and_need_not_be(done):
    with results_on_a_small_disk(done) as results:
        subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
        run = done.run(check=False)
        subprocess.run(["mount", "-o", "remount,rw", str(results)], check=True)
    assert run.returncode == 0 and "Nothing to be done" in run.output
