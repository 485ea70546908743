import csv
import shlex
import sys
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from snakemake.exceptions import WorkflowError

from dprobust.errors import UserError
from dprobust.fingerprint import fingerprint
from dprobust.study import Study

# Snakemake puts the interpreter's path into shell commands as it is: quoted, it may have spaces.
sys.executable = shlex.quote(sys.executable)

try:
    study = Study(config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")
except UserError as error:
    raise WorkflowError(f"config: {error}") from None


run_lock = FileLock(".snakemake/run.lock")


def one_run_at_a_time():
    """Hold this folder for this run. Unlike Snakemake's own lock (off in profiles/default), this one is gone when its
    process is, even a killed one, so that the next run just goes on."""
    try:
        run_lock.acquire(timeout=0)
    except Timeout:
        raise WorkflowError("another run is at work in this folder; wait for it or stop it") from None


onstart:
    one_run_at_a_time()


def files(pattern, dataset, runs, **more):
    """The files of a pattern for the runs of a dataset, with every seed if the pattern has one."""
    values = {"study": study.name, "dataset": dataset, "run": [run.name for run in runs], "seed": study.seeds}
    return list(dict.fromkeys(expand(pattern, **values, **more)))


def every_run(pattern):
    """The files of a pattern for every run of every dataset."""
    return [path for dataset in study.config["datasets"] for path in files(pattern, dataset, study.runs(dataset))]


def metric_settings(metric, wildcards):
    """The entry of a metric in the config."""
    return study.dataset(wildcards.dataset)["metrics"][metric]


# metrics that draw the images they measure, at random, from all test images in use
DRAWING = {"curvature"}


def metric_size(metric, wildcards):
    """Number of test images that a metric is given, the first ones."""
    if metric in DRAWING:
        return study.sizes(wildcards.dataset)["test"]
    return study.size(wildcards.dataset, metric)


def extra_input(metric, wildcards):
    """What a metric needs besides a model and the test images."""
    if metric != "corruptions":
        return []
    settings = metric_settings(metric, wildcards)
    return settings["sets"] or f"data/mnist_c/{settings['source']}.npz"


def pretrained(pattern, wildcards, **more):
    """A file of the pre-training for a dataset; nothing where there is none."""
    return pattern.format(**wildcards, **more) if study.pretraining(wildcards.dataset) else []


def public_examples(split, wildcards):
    """What the convolutions are pre-trained on."""
    return f"data/{study.pretraining(wildcards.dataset)['dataset']}/{split}.npz"


def examples(split, wildcards):
    """What a run is trained on: images, or features of them where the convolutions are pre-trained."""
    features = pretrained(FEATURES, wildcards, view="images", split=split)
    return features or f"data/{wildcards.dataset}/{split}.npz"


def mirrored_examples(wildcards):
    """Features of the mirror images, for a run that flips what it cannot flip any more."""
    flips = "flip" in study.training(wildcards.dataset, wildcards.run)["augment"]
    return pretrained(FEATURES, wildcards, view="mirrored", split="train") if flips else []


def note(*datasets):
    """What is to be known of every number of these datasets: the study's label, and data that is not the official."""
    unofficial = ", ".join(file for dataset in datasets for file in study.unofficial(dataset))
    return "; ".join(filter(None, (study.config["label"], unofficial and f"not the official {unofficial}")))


def paper_values(table):
    """Column -> row -> number of the file in workflow/paper/ that a table names; nothing if it names none."""
    if not table.settings.get("paper"):
        return {}
    path = Path(workflow.basedir) / "workflow/paper" / table.settings["paper"]
    if not path.is_file():
        raise WorkflowError(f"config: tables.{table.name}.paper: no file {path.name} in workflow/paper")
    _, *columns = next(rows := csv.reader(path.read_text(encoding="utf-8").splitlines()))
    lines = list(rows)
    return {name: {line[0]: float(line[i]) for line in lines} for i, name in enumerate(columns, start=1)}


def figure_files(suffix):
    """The figures of the study in a format, and a contact sheet of the corruptions that a table or figure is about."""
    sources = {
        settings["source"]
        for display in study.displays
        if display.metric == "corruptions"
        and (settings := study.dataset(display.dataset)["metrics"]["corruptions"])["sets"] is None
    }
    names = [*study.figures, *(f"mnist_c_{source}" for source in sorted(sources))]
    return [f"results/{study.name}/figures/{name}.{suffix}" for name in names]


TABLES_OF_ALL_RUNS = ("accuracy", "privacy")


def table_files(suffix):
    """The tables of the study in a format."""
    return [f"results/{study.name}/tables/{name}.{suffix}" for name in (*study.tables, *TABLES_OF_ALL_RUNS)]


def caption(shown):
    """The caption of a figure or table: its own, or the one of its metric."""
    own = Path(f"workflow/report/{shown.name}.rst")
    return str(own if (Path(workflow.basedir) / own).exists() else own.with_name(f"{shown.metric}.rst"))


def report_captions():
    """Name of a figure or table -> its caption file, for all that the report shows."""
    sheets = [Path(path).stem for path in figure_files("png") if Path(path).stem not in study.figures]
    captions = {display.name: caption(display) for display in study.displays}
    captions |= dict.fromkeys(sheets, "workflow/report/contact_sheet.rst")
    return captions | {name: f"workflow/report/{name}.rst" for name in TABLES_OF_ALL_RUNS}


def caption_values(shown):
    """What a caption can tell, as ``snakemake.params``."""
    entry = study.dataset(shown.dataset)
    return {
        "settings": shown.settings,
        "n": study.size(shown.dataset, shown.metric),
        "seeds": len(study.seeds),
        "epochs": entry["training"]["dpsgd"]["epochs"],
        "delta": entry["privacy"]["deltas"][0],
        "measured": entry["metrics"][shown.metric],
        "pretraining": entry["pretraining"],
    }
