"""What a run that was killed leaves behind: jobs still at work, and files half written."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

UNUSED = 3600
"""Seconds after which a file half written under data/, which clones may share, is nobody's any more."""


def stop_jobs(folder: Path, scripts: str, tell: Callable[[str], object]) -> None:
    """Kill jobs of an earlier run in a folder, on this host: they would write what the run that is to begin writes.

    Nothing is lost by it: the run does them again, a training after its last epoch.

    Args:
        folder: where runs are called; only one is at work there.
        scripts: a part of the command line of every job, and of nothing else that is called in the folder.
        tell: is given a line for people.
    """
    here = str(folder.resolve())
    found = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])  # None of what another user's process does not tell
        if process.info["cwd"] == here and any(scripts in argument for argument in process.info["cmdline"] or ())
    ]
    for process in found:
        process.kill()
    psutil.wait_procs(found, timeout=60)
    if found:
        numbers = " ".join(str(process.pid) for process in found)
        tell(f"Stopped jobs of an earlier run that was killed without them (processes {numbers}); they are done again")


def remove_halves(results: Path, data: Path, now: float) -> None:
    """Remove the temporary files of `dprobust.files.replaced` that its process did not live to remove.

    Args:
        results: all in it are removed; no job is at work there.
        data: those that nobody has written for an hour are.
        now: seconds since the epoch.
    """
    for path in results.rglob(".*.tmp"):
        path.unlink(missing_ok=True)
    for path in data.rglob(".*.tmp"):
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > UNUSED:
                path.unlink()
