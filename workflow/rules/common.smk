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

ours = Path(workflow.main_snakefile).parent == WORKFLOW.parent  # and not a module of another workflow
if ours and workflow.is_main_process:
    from workflow import called, console, starting

    console.take(workflow, plan)
elif ours:  # in a job
    from workflow.noting import note_in_jobs

    note_in_jobs()


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
