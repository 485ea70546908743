# What is seen to before work begins: one run at a time, targets that there are, and nothing of an earlier run at work.
import time

from snakemake.persistence import PersistenceBase

from dprobust import leftovers, running

NO_RUNS = (
    *("dryrun", "touch", "unlock", "lint", "list_rules", "list_target_rules", "dag", "rulegraph", "filegraph", "d3dag"),
    *("summary", "detailed_summary", "list_changes", "reporter", "report", "cleanup_metadata", "delete_all_output"),
    *("delete_temp_output", "archive", "containerize", "generate_unit_tests"),
)
"""Options with which nothing is run."""

run_lock = None


def one_run_at_a_time():
    """Hold this folder for this run. Unlike Snakemake's own lock (off in profiles/default), this one is gone when its
    process is, even a killed one, so that the next run just goes on."""
    global run_lock
    run_lock = run_lock or told(running.only_run, Path(".snakemake") / "run.lock")


def runs(asked_for):
    """Whether anything is to be run."""
    return not any(getattr(asked_for, name, None) for name in NO_RUNS)


def wait_for_earlier_jobs(asked_for):
    """See that no job of a head that was killed is at work still, before it is planned what is to be done: what such a
    job makes need not be made again, and must not be made twice at once."""
    if not runs(asked_for):
        return
    folder = Path(workflow.workdir_init)
    if told(running.queued, folder, 3 if asked_for.executor == "slurm" else 0):
        one_run_at_a_time()  # the jobs of a run that is alive are not waited for
        told(running.wait_for_earlier_jobs, folder, logger.warning, asked_for.latency_wait or 0)


def note_in_jobs_what_they_made():
    """Have a job itself note what it made its files from. Snakemake leaves that to the head: of a job that outlives its
    head nothing would be noted, and its files would pass for whatever is asked for later. Nor does the job strike out
    the number that the cluster gave it, by which a new head takes it up."""
    started, finished = PersistenceBase.started, PersistenceBase.finished

    def begun(persistence, job, external_jobid=None):
        if not persistence.external_jobids(job):
            started(persistence, job, external_jobid)

    async def noted(persistence, job):
        settings = persistence.dag.workflow.remote_execution_settings
        settings.immediate_submit = True  # what makes `finished` note it
        try:
            await finished(persistence, job)
        finally:
            settings.immediate_submit = False

    PersistenceBase.started, PersistenceBase.finished = begun, noted


if not workflow.is_main_process:
    note_in_jobs_what_they_made()


def clear_up():
    """End what a run of this machine that was killed has left behind: jobs at work still, files half written. A
    cluster's jobs are others'."""
    if not workflow.local_exec:
        return
    leftovers.stop_jobs(Path(), ".snakemake/scripts/", logger.warning)
    leftovers.remove_halves(Path("results") / study.name, Path("data"), time.time())


onstart:
    one_run_at_a_time()
    clear_up()
