"""What else is at work in a folder: another run, here or on another host, and jobs that an earlier run left behind."""

import getpass
import os
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from dprobust.errors import UserError

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED", "SPECIAL_EXIT", "REQUEUE_HOLD", "RESV_DEL_HOLD"}
"""States of Slurm's jobs that have not begun, or do not go on by themselves."""


def only_run(path: Path) -> FileLock:
    """Take a lock that is gone when its process is, even a killed one.

    On a file system without `flock` the lock is a file whose existence counts. A killed run leaves it behind: of a
    process of this host that is gone it is taken over, of another host nobody can tell.

    Args:
        path: the file to lock. It says who holds the lock, in two lines: process, host.

    Raises:
        UserError: another run holds the lock; names file, process and host.
    """
    lock = FileLock(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="flock not supported")
            lock.acquire(timeout=0)
    except Timeout:
        raise UserError(_held(path.absolute(), isinstance(lock, SoftFileLock))) from None
    if not isinstance(lock, SoftFileLock):  # which writes the same
        path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    return lock


def _held(path: Path, soft: bool) -> str:
    here = socket.gethostname()
    try:
        process, host = path.read_text(encoding="utf-8").split()[:2]
        host = host.partition("?")[0]  # what follows names a container
    except (OSError, ValueError):
        process, host = "unknown", "an unknown host"
    told = f"{path}: another run is at work in this folder: process {process} on {host}; wait for it or stop it"
    if soft and host != here:
        told += "; if it is gone, remove that file: this file system has no flock, which would tell"
    return told


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue."""

    number: str
    state: str
    comment: str


def queued(folder: Path, patience: int = 3) -> list[Queued]:
    """This user's jobs in Slurm's queue that work in a folder.

    Args:
        folder: where the jobs work, as they were submitted.
        patience: how often a Slurm is asked that does not answer, as a busy one does now and then. With 0 it is asked
            once, and no answer means no jobs: nobody needs a Slurm here.

    Raises:
        UserError: Slurm does not answer.
    """
    if not shutil.which("squeue") and not patience:
        return []
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%k|%Z"]
    for attempt in range(max(patience, 1)):
        time.sleep(5 * attempt)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60 if patience else 5)
            break
        except (OSError, subprocess.SubprocessError) as error:
            told = ((getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["nothing"])[-1]
    else:
        if not patience:
            return []
        raise UserError(
            f"squeue: cannot tell whether jobs of an earlier run are at work in this folder: {told}; "
            "try again when Slurm answers"
        )
    jobs = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
    mine = [Queued(number, state, comment) for number, state, comment, where in jobs if Path(where) == folder]
    return [job for job in mine if job.comment.startswith("rule_")]


def wait_for_earlier_jobs(folder: Path, tell: Callable[[str], object], late: float, every: float = 10) -> bool:
    """Wait for what an earlier run, now gone, left in Slurm's queue: two jobs must not make the same files.

    Jobs that have not begun are cancelled: nothing is lost. Jobs at work are waited for; their files will be there.

    Args:
        folder: where the jobs work, as they were submitted.
        tell: is given a line for people.
        late: seconds that a file made on another machine may take to be seen here.
        every: seconds between looks at the queue.

    Returns:
        Whether there were any.

    Raises:
        UserError: Slurm does not answer, or the user would not wait.
    """
    jobs = queued(folder)
    if not jobs:
        return False
    if pending := [job.number for job in jobs if job.state in WAITING]:
        tell(f"Cancelling {len(pending)} jobs of an earlier run that have not begun: {' '.join(pending)}")
        subprocess.run(["scancel", *pending], check=False)
    told, numbers = 0, " ".join(job.number for job in jobs if job.number not in pending)
    try:
        while jobs := queued(folder):
            busy = [job for job in jobs if job.number not in pending]
            if busy and len(busy) != told:
                told, numbers = len(busy), " ".join(job.number for job in busy)
                tell(
                    f"Waiting for {told} jobs of an earlier run at work in this folder; to have them stopped and done "
                    f"again (a training goes on after its last epoch): scancel {numbers}"
                )
            time.sleep(every)
        time.sleep(late)
    except KeyboardInterrupt:
        raise UserError(f"interrupted; the jobs of the earlier run go on ({numbers})") from None
    return True
