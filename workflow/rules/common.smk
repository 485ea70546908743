import re
import shlex
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from snakemake.cli import parse_args
from snakemake.exceptions import WorkflowError
from snakemake.persistence import PersistenceBase

from dprobust import asked
from dprobust import plan as paths
from dprobust import running
from dprobust.errors import UserError
from dprobust.plan import Plan
from dprobust.schema import ConfigError
from dprobust.study import Study

# Snakemake puts the interpreter's path into shell commands as it is: quoted, it may have spaces.
sys.executable = shlex.quote(sys.executable)

WORKFLOW = Path(str(workflow.current_basedir)).parent


def told(function, *arguments):
    """What a function of the package gives; what a user can mend is told in one line."""
    try:
        return function(*arguments)
    except UserError as error:
        where = "config: " if isinstance(error, ConfigError) else ""
        raise WorkflowError(f"{where}{error}") from None


if workflow.is_main_process:
    told(asked.check_profile, sys.argv[1:])
    told(asked.check_cores, workflow.resource_settings.cores)
    for file in workflow.overwrite_configfiles:
        told(asked.check_config_file, Path(file))

study = told(Study, config)
plan = Plan(study, WORKFLOW / "scripts")

run_lock = None


def one_run_at_a_time():
    """Hold this folder for this run. Unlike Snakemake's own lock (off in profiles/default), this one is gone when its
    process is, even a killed one, so that the next run just goes on."""
    global run_lock
    run_lock = run_lock or told(running.only_run, Path(".snakemake") / "run.lock")


def command_line():
    """What was asked for where this Snakefile is run by the command `snakemake`; None in its jobs, and in modules.
    Snakemake has read the command line by now, but tells workflows of it only after their Snakefile: it is read again.
    """
    called = Path(sys.argv[0])
    snakemake = called.name == "snakemake" or called.parts[-2:] == ("snakemake", "__main__.py")
    if not (snakemake and workflow.is_main_process and Path(workflow.main_snakefile).parent == WORKFLOW.parent):
        return None
    with redirect_stderr(StringIO()):
        return parse_args(sys.argv[1:])[1]


def check_targets(asked_for):
    """Refuse targets that nothing makes, with what comes near."""
    rules = [rule.name for rule in workflow.rules]
    makes = lambda path: any(rule.is_producer(path) for rule in workflow.rules)
    told(asked.check_targets, asked_for.targets or [], rules, makes)


def wait_for_earlier_jobs(asked_for):
    """See that no job of a head that was killed is at work still, before it is planned what is to be done: what such a
    job makes need not be made again, and must not be made twice at once."""
    idle = ("dryrun", "touch", "unlock", "lint", "list_rules", "list_target_rules", "dag", "rulegraph", "filegraph")
    idle += ("d3dag", "summary", "detailed_summary", "list_changes", "reporter", "cleanup_metadata", "archive")
    if any(getattr(asked_for, name, None) for name in idle):
        return
    folder = Path(workflow.workdir_init)
    if told(running.queued, folder, 3 if asked_for.executor == "slurm" else 0):
        one_run_at_a_time()  # the jobs of a run that is alive are not waited for
        told(running.wait_for_earlier_jobs, folder, logger.warning, asked_for.latency_wait or 0)


def note_in_jobs_what_they_made():
    """Have a job itself note what it made its files from. Snakemake leaves that to the head: of a job that outlives its
    head nothing would be noted, and its files would pass for whatever is asked for later."""
    finished = PersistenceBase.finished

    async def noted(persistence, job):
        settings = persistence.dag.workflow.remote_execution_settings
        settings.immediate_submit = True  # what makes `finished` note it
        try:
            await finished(persistence, job)
        finally:
            settings.immediate_submit = False

    PersistenceBase.finished = noted


if not workflow.is_main_process:
    note_in_jobs_what_they_made()


onstart:
    one_run_at_a_time()


def of(function, *names):
    """A function of the plan as one of the wildcards of these names."""
    return lambda wildcards: told(function, *(wildcards[name] for name in names))


def every_model():
    """The models of every run that is trained."""
    return [
        path
        for dataset in study.datasets
        for path in plan.files(paths.MODEL, dataset=dataset, run=list(study.trained(dataset)), seed=study.seeds)
    ]


def every(section):
    """The files of a section's displays."""
    return [path for display in study.section(section) for path in plan.shown(display).values()]


def any_of(names):
    """A wildcard's constraint: one of the names, or nothing at all where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def gpus(wildcards):
    """GPUs that a job asks for: one if the study's device is cuda, none if it is cpu. `auto` takes one where it finds
    one: it has its share of this machine's (--resources gpu=1), and asks for none of a cluster's, which may have none.
    """
    device = study.settings.device
    return int(device == "cuda" or device == "auto" and workflow.local_exec)


def short(wildcards):
    """The group of a job that measures a metric: on a cluster the short ones of a model share a job
    (--group-components short=N), a long one has a job of its own."""
    if plan.bounds("metric", wildcards.metric)[0] > 30:
        return None
    group = "_".join(["short", wildcards.dataset, wildcards.run, wildcards.seed])
    workflow.parent_groupids[group] = "short"  # what it is called in --group-components
    return group
