# When work begins: one run at a time, and nothing of a killed one at work.
import time

from dprobust import leftovers, running

run_lock = None


def one_run_at_a_time():
    """Hold this folder for this run. Unlike Snakemake's own lock (off in profiles/default), this one is gone when its
    process is, even a killed one, so that the next run just goes on."""
    global run_lock
    run_lock = told(running.only_run, Path(".snakemake") / "run.lock")


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
