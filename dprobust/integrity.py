"""Whether the files of a study are there, and are what was written. Needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dprobust import sources
from dprobust.plan import ARRAYS, DATA, MODEL, PRETRAINED, PRETRAINING, RECORD, TRAINED, Plan
from dprobust.seals import broken, sealed

RECORDS = (RECORD, ARRAYS, RECORD.replace(".csv", ".json"))


def results(plan: Plan) -> list[str]:
    """The files that a whole run of a study is to leave under results/, once each.

    Were some no targets of it, one that is lost or put aside would be missed only when something is made from it.
    """
    study, found = plan.study, []
    for dataset in study.datasets:
        if trained := list(study.trained(dataset)):
            if study.dataset(dataset).pretraining:
                found += plan.files(PRETRAINED, dataset=dataset) + plan.files(PRETRAINING, dataset=dataset)
            for run in trained:
                for seed in study.seeds:
                    inputs = plan.training_inputs(dataset, run, seed).values()
                    found += [path for path in inputs if Path(path).parts[0] == "results"]
                    found += [path for file in (MODEL, TRAINED) for path in plan.files(file, **_of(dataset, run, seed))]
    for display in study.displays.values():
        for metric, dataset, run in display.measured:
            for seed in study.seeds_of(run):
                where = _of(dataset, run.name, seed) | {"metric": metric}
                found += [path for file in RECORDS for path in plan.files(file, **where)]
        found += plan.show_inputs(display)["privacy"]
        found += plan.shown(display).values()
    return list(dict.fromkeys([*found, f"results/{study.name}/report.html"]))


def _of(dataset: str, run: str, seed: int) -> dict[str, str | int]:
    return {"dataset": dataset, "run": run, "seed": seed}


def data(plan: Plan) -> list[str]:
    """The files under data/ that a study can use: datasets, and what metrics and displays need besides."""
    study, found = plan.study, []
    for dataset in study.datasets:
        used = [study.source(dataset)]
        if pretraining := study.dataset(dataset).pretraining:
            used.append(pretraining.dataset)
        slugs = [sources.slug(source, plan.registry.sources) for source in used]
        found += [DATA.format(source=slug, split=split) for slug in slugs for split in ("train", "test")]
    for display in study.displays.values():
        needed = [path for name, path in plan.show_inputs(display).items() if name.startswith("needs_")]
        needed += [path for metric, dataset, _ in display.measured for path in study.needs(dataset, metric).values()]
        found += [path for path in needed if Path(path).parts[0] == "data"]
    return list(dict.fromkeys(found))


def lost(plan: Plan) -> list[list[str]]:
    """Files that were made here and are not there: removed, or put aside because of damage.

    Those that much is made from, data only if something is to be made; not records, and what is made from them.

    Returns:
        Layers, each made from those before it; none is empty.
    """
    missing = [path for path in results(plan) if not Path(path).exists()]
    missing += [path for path in data(plan) if missing and not Path(path).exists()]
    study = f"results/{plan.study.name}"
    folders = [[f"data/{slug}/" for slug in plan.study.sources], ["data/"]]
    folders += [[f"{study}/{stage}/"] for stage in ("pretrained", "features", "models")]
    layers: list[list[str]] = [[] for _ in folders]
    for path in missing:
        layer = next((i for i, places in enumerate(folders) if path.startswith(tuple(places))), None)
        if layer is not None and Path(path).name in sealed(Path(path).parent):
            layers[layer].append(path)
    return list(filter(None, layers))


@dataclass(frozen=True)
class Found:
    """Files by their state.

    Attributes:
        whole: are what their seals say.
        broken: are not.
        missing: are not there.
        unsealed: are there, and nothing tells what they were.
    """

    whole: list[Path]
    broken: list[Path]
    missing: list[Path]
    unsealed: list[Path]


def examine(paths: Iterable[str]) -> Found:
    """Read files and compare them with their seals (`dprobust.seals`)."""
    present, missing = [], []
    for path in map(Path, paths):
        (present if path.is_file() else missing).append(path)
    seals = {folder: sealed(folder) for folder in {path.parent for path in present}}
    unsealed = [path for path in present if path.name not in seals[path.parent]]
    damaged = broken(present)
    whole = [path for path in present if path not in {*unsealed, *damaged}]
    return Found(whole, damaged, missing, unsealed)
