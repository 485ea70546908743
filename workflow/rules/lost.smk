import os
import subprocess
import time

from dprobust import leftovers

MAKING_LOST = "DPROBUST_MAKING_LOST"
"""Set in the environment of a run that makes lost files."""
MOST = 1000
"""Lost files that are made first. Of more, a whole folder was lost, and what was made of them is likely to be as well."""
NO_RUNS = (
    *("dryrun", "touch", "unlock", "lint", "list_rules", "list_target_rules", "dag", "rulegraph", "filegraph", "d3dag"),
    *("summary", "detailed_summary", "list_changes", "reporter", "report", "cleanup_metadata", "delete_all_output"),
    *("delete_temp_output", "archive", "containerize", "generate_unit_tests", "targets"),
)
"""Options with which nothing is run, or not all that there is."""


def fixed(inputs):
    """Inputs (name -> path or paths) with those that no job makes, files of the user and of the workflow, as ancient:
    a job's params tell of their content, so that newer ones are no reason to run it again.

    None that a job makes may be ancient: of what needs one that is to be made again, Snakemake (9.27) then does not see
    that it is missing.
    """
    if isinstance(inputs, dict):
        return {name: fixed(paths) for name, paths in inputs.items()}
    if not isinstance(inputs, str):
        return [fixed(path) for path in inputs]
    return inputs if Path(inputs).parts[0] in ("results", "data") else ancient(inputs)


def clear_up():
    """End what a run that was killed has left behind: jobs at work still, files half written."""
    leftovers.stop_jobs(Path(), ".snakemake/scripts/", logger.warning)
    leftovers.remove_halves(Path("results") / study.name, Path("data"), time.time())


def make_lost_files():
    """Make files that are lost (`dprobust.integrity.lost`) by runs of their own, before a whole run is planned.

    That one would do again all that was ever made of them, if only to end with the same bytes: Snakemake sees that a file is
    what it was only where the file is there when it plans.
    """
    if not from_command_line() or os.environ.get(MAKING_LOST):
        return
    with redirect_stderr(StringIO()):
        given = parse_args(sys.argv[1:])[1]
    if any(getattr(given, name, None) for name in NO_RUNS):
        return
    for lost in told(integrity.lost, plan):
        if len(lost) > MOST:
            continue
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        logger.warning(f"Lost since they were made, and made again first: {', '.join(lost[:5])}{more}")
        command = [*shlex.split(sys.executable), "-m", "snakemake", *sys.argv[1:], "--", *lost]
        environment = os.environ | {MAKING_LOST: "1"}
        done = subprocess.run(command, cwd=workflow.workdir_init, env=environment)
        if done.returncode != 0 and not given.keep_going:
            raise WorkflowError("lost files could not be made again; why is told above")
