"""One run at a time, and what an earlier run left in Slurm's queue; Slurm's commands are stand-ins here."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from dprobust.errors import UserError
from dprobust.running import only_run, queued, wait_for_earlier_jobs

HERE = socket.gethostname()
GONE = 2**22 + 1
"""No process: above the largest number that Linux gives."""


def test_another_process_is_refused_and_told_who_holds_the_lock(tmp_path):
    path = tmp_path / "run.lock"
    held = only_run(path)
    code = "import sys; from pathlib import Path; from dprobust.running import only_run; only_run(Path(sys.argv[1]))"
    again = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode and f"{path}: another run is at work in this folder: process {os.getpid()} on {HERE};" in (
        done.stderr
    )
    assert "remove that file" not in done.stderr  # this lock is gone when its process is
    held.release()
    subprocess.run(again, check=True)


@pytest.fixture
def no_flock(monkeypatch):
    def missing(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(filelock._unix.fcntl, "flock", missing)


@pytest.mark.filterwarnings("error")
def test_without_flock_a_killed_run_of_this_host_is_recognised(tmp_path, no_flock):
    path = tmp_path / "run.lock"
    path.write_text(f"{GONE}\n{HERE}\n")
    lock = only_run(path)
    assert path.read_text().split()[:2] == [str(os.getpid()), HERE]
    lock.release()
    assert not path.exists()


def test_without_flock_a_run_at_work_is_refused(tmp_path, no_flock):
    path = tmp_path / "run.lock"
    path.write_text(f"{os.getppid()}\n{HERE}\n")
    with pytest.raises(UserError, match=f"process {os.getppid()} on {HERE}; wait for it or stop it$"):
        only_run(path)


def test_without_flock_a_lock_of_another_host_is_named_with_the_remedy(tmp_path, no_flock):
    path = tmp_path / "run.lock"
    path.write_text(f"{GONE}\nlogin2\n")
    with pytest.raises(UserError, match=f"{path}: .*: process {GONE} on login2; .*; if it is gone, remove that file"):
        only_run(path)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with one file a job in the queue, which `squeue` prints and `scancel` removes; and the calls made."""
    tools, queue = tmp_path / "bin", tmp_path / "queue"
    tools.mkdir()
    queue.mkdir()
    programs = {
        "squeue": f'echo "squeue $*" >> {tmp_path}/calls\ncat {queue}/* 2> /dev/null || true\n',
        "scancel": f'echo "scancel $*" >> {tmp_path}/calls\nfor job in "$@"; do rm {queue}/$job; done\n',
    }
    for name, code in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{code}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return queue


def job(queue, number, state, folder, comment="rule_train_wildcards_a_b"):
    (queue / str(number)).write_text(f"{number}|{state}|{comment}|{folder}\n")


def test_the_queue_of_this_folder(slurm):
    folder = Path("/data/my study | two")
    job(slurm, 1, "RUNNING", folder)
    job(slurm, 2, "RUNNING", folder.parent)
    job(slurm, 3, "PENDING", folder)
    job(slurm, 4, "RUNNING", folder, "(null)")  # somebody's own
    assert [(found.number, found.state) for found in queued(folder)] == [("1", "RUNNING"), ("3", "PENDING")]


def test_what_has_not_begun_is_cancelled_and_what_is_at_work_waited_for(slurm, monkeypatch):
    folder, told, slept = Path("/data/study"), [], []
    job(slurm, 1, "RUNNING", folder)
    job(slurm, 2, "RUNNING", folder)
    job(slurm, 3, "PENDING", folder)

    def sleep(seconds):
        slept.append(seconds)
        if seconds == 7:  # a look at the queue later, the next job has ended
            min(slurm.iterdir()).unlink()

    monkeypatch.setattr("dprobust.running.time.sleep", sleep)
    assert wait_for_earlier_jobs(folder, told.append, late=60, every=7)
    assert [line for line in (slurm.parent / "calls").read_text().splitlines() if "scancel" in line] == ["scancel 3"]
    assert "Cancelling 1 jobs" in told[0]
    assert told[1].endswith("scancel 1 2") and told[2].endswith("scancel 2") and len(told) == 3
    assert slept[-1] == 60 and slept.count(7) == 2
    assert not wait_for_earlier_jobs(folder, told.append, late=60)


def test_who_would_not_wait_is_told_that_the_jobs_go_on(slurm, monkeypatch):
    job(slurm, 1, "RUNNING", Path("/data/study"))

    def interrupt(seconds):
        if seconds:
            raise KeyboardInterrupt

    # Not time.sleep itself: a subprocess that is waited for sleeps, too.
    monkeypatch.setattr("dprobust.running.time", SimpleNamespace(sleep=interrupt))
    with pytest.raises(UserError, match=r"^interrupted; the jobs of the earlier run go on \(1\)$"):
        wait_for_earlier_jobs(Path("/data/study"), print, late=60)


def test_a_slurm_that_does_not_answer(slurm, monkeypatch):
    monkeypatch.setattr("dprobust.running.time.sleep", lambda seconds: None)
    silent = slurm.parent / "bin" / "squeue"
    silent.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(UserError, match="^squeue: cannot tell .*: slurm_load_jobs error: Unable to contact"):
        queued(Path("/data/study"))
    assert queued(Path("/data/study"), patience=0) == []  # a run on this machine needs none
