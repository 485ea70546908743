"""Jobs of a cluster note what they made their files from."""

from snakemake.persistence import PersistenceBase


def note_in_jobs() -> None:
    """Have a job itself note what it made its files from. Snakemake (9.27) leaves that to the head: of a job that
    outlives its head nothing would be noted, and its files would pass for whatever is asked for later. Nor does the job
    strike out the number that the cluster gave it, by which a new head takes it up."""
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
