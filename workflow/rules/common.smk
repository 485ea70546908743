import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from dprobust import asked, integrity
from dprobust import plan as paths
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
    told(asked.check_place, WORKFLOW.parent)
    told(asked.check_profile, sys.argv[1:])
    told(asked.check_cores, workflow.resource_settings.cores)
    for file in workflow.overwrite_configfiles:
        told(asked.check_config_file, Path(file))

study = told(Study, config)
plan = Plan(study, WORKFLOW / "scripts")

called_here = workflow.is_main_process and Path(workflow.main_snakefile).parent == WORKFLOW.parent
if called_here:  # and not a module of another workflow, nor a job
    from workflow import called, console

    console.take(workflow, plan)


def of(function, *names):
    """A function of the plan as one of the wildcards of these names."""
    return lambda wildcards: told(function, *(wildcards[name] for name in names))


def when_asked(function, *arguments):
    """What a function gives, for a job that needs it."""
    return lambda wildcards: told(function, *arguments)


def in_time(function, *arguments):
    """What a function gives: at once where work is planned, so that what is wrong is told before any; in a job, which
    reads this file as well, only if it is asked for."""
    return told(function, *arguments) if workflow.is_main_process else when_asked(function, *arguments)


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


def literally(text):
    """A text in which Snakemake sees no wildcards: behind each brace stands a character that has no width."""
    return text and text.replace("{", "{\N{ZERO WIDTH NON-JOINER}")
