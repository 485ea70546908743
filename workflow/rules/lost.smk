# Files that were made and are no more: made again before a whole run is planned.
import os
import subprocess

MAKING_LOST = "DPROBUST_MAKING_LOST"
"""Set in the environment of a run that makes lost files."""
MOST = 1000
"""Lost files that are made first. Of more, a whole folder was lost, and what was made of them is likely to be as well."""


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


def make_lost_files(asked_for):
    """Make files that are lost (`dprobust.integrity.lost`) by runs of their own, before a whole run is planned.

    That one would do again all that was ever made of them, if only to end with the same bytes: Snakemake sees that a file is
    what it was only where the file is there when it plans.
    """
    if os.environ.get(MAKING_LOST) or asked_for.targets or not runs(asked_for):
        return
    for lost in told(integrity.lost, plan):
        if len(lost) > MOST:
            continue
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        logger.warning(f"Lost since they were made, and made again first: {', '.join(lost[:5])}{more}")
        command = [*shlex.split(sys.executable), "-m", "snakemake", *sys.argv[1:], "--", *lost]
        environment = os.environ | {MAKING_LOST: "1"}
        done = subprocess.run(command, cwd=workflow.workdir_init, env=environment)
        if done.returncode != 0 and not asked_for.keep_going:
            raise WorkflowError("lost files could not be made again; why is told above")
