import re
import shlex
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from filelock import FileLock, Timeout
from snakemake.cli import parse_args
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
    told(asked.check_profile, sys.argv[1:])
    told(asked.check_cores, workflow.resource_settings.cores)
    for file in workflow.overwrite_configfiles:
        told(asked.check_config_file, Path(file))

study = told(Study, config)
plan = Plan(study, WORKFLOW / "scripts")

run_lock = FileLock(".snakemake/run.lock")


def one_run_at_a_time():
    """Hold this folder for this run. Unlike Snakemake's own lock (off in profiles/default), this one is gone when its
    process is, even a killed one, so that the next run just goes on."""
    try:
        run_lock.acquire(timeout=0)
    except Timeout:
        lock = Path(run_lock.lock_file).resolve()
        raise WorkflowError(f"{lock}: another run is at work in this folder; wait for it or stop it") from None


def from_command_line():
    """Whether this Snakefile is run by the command `snakemake`: not in a job of its, nor as a module of another."""
    called = Path(sys.argv[0])
    snakemake = called.name == "snakemake" or called.parts[-2:] == ("snakemake", "__main__.py")
    return snakemake and workflow.is_main_process and Path(workflow.main_snakefile).parent == WORKFLOW.parent


def check_targets():
    """Refuse targets that nothing makes. Snakemake tells workflows of its targets only after their Snakefile."""
    if not from_command_line():
        return
    with redirect_stderr(StringIO()):
        targets = parse_args(sys.argv[1:])[1].targets
    rules = [rule.name for rule in workflow.rules]
    told(asked.check_targets, targets or [], rules, lambda path: any(r.is_producer(path) for r in workflow.rules))


onstart:
    one_run_at_a_time()
    clear_up()


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
