"""Before a run is planned: jobs of a head that was killed come to their end, and lost files are made again."""

import os
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from snakemake.logging import logger

from dprobust import integrity, running
from dprobust.errors import UserError
from dprobust.plan import Plan

LOCK = Path(".snakemake") / "run.lock"
"""Held by the run that is at work in a folder."""
NO_RUNS = (
    *("dryrun", "touch", "unlock", "lint", "list_rules", "list_target_rules", "dag", "rulegraph", "filegraph", "d3dag"),
    *("summary", "detailed_summary", "list_changes", "reporter", "report", "cleanup_metadata", "delete_all_output"),
    *("delete_temp_output", "archive", "containerize", "generate_unit_tests"),
)
"""Options with which nothing is run."""
MAKING_LOST = "DPROBUST_MAKING_LOST"
"""Set in the environment of a run that makes lost files."""
MOST = 1000
"""Lost files that are made first. Of more, a whole folder was lost, and so is, most likely, what was made of them."""


def prepare(asked_for: Namespace, plan: Plan, folder: Path) -> None:
    """See to what must be before a run is planned; nothing where nothing is run.

    Args:
        asked_for: the command line.
        plan: of the study.
        folder: where Snakemake was called.

    Raises:
        UserError: another run is at work, Slurm does not answer, or lost files could not be made.
    """
    if not any(getattr(asked_for, name, None) for name in NO_RUNS):
        _wait_for_earlier_jobs(asked_for, folder)
        _make_lost_files(asked_for, plan, folder)


def _wait_for_earlier_jobs(asked_for: Namespace, folder: Path) -> None:
    """See that no job of a head that was killed is at work still: what such a job makes need not be made again, and
    must not be made twice at once."""
    if not running.queued(folder, 3 if asked_for.executor == "slurm" else 0):
        return
    lock = running.only_run(LOCK)  # the jobs of a run that is alive are not waited for
    try:
        running.wait_for_earlier_jobs(folder, logger.warning, asked_for.latency_wait or 0)
    finally:
        lock.release()


def _make_lost_files(asked_for: Namespace, plan: Plan, folder: Path) -> None:
    """Make files that are lost (`dprobust.integrity.lost`) by runs of their own, before a whole run is planned.

    That one would do again all that was ever made of them, if only to end with the same bytes: Snakemake sees that a
    file is what it was only where the file is there when it plans.
    """
    if os.environ.get(MAKING_LOST) or asked_for.targets:
        return
    for lost in integrity.lost(plan):
        if len(lost) > MOST:
            continue
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        logger.warning(f"Lost since they were made, and made again first: {', '.join(lost[:5])}{more}")
        # common.smk has quoted sys.executable for the shell.
        command = [*shlex.split(sys.executable), "-m", "snakemake", *sys.argv[1:], "--", *lost]
        done = subprocess.run(command, cwd=folder, env=os.environ | {MAKING_LOST: "1"}, check=False)
        if done.returncode != 0 and not asked_for.keep_going:
            raise UserError("lost files could not be made again; why is told above")
