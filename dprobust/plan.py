"""The plan of a study: its files, and for each job a specification that defines its result.

A specification holds plain values: settings, the fingerprint of the code that the job runs, and the keys of what it is
made from. Files follow from specifications alone: neither the time of a file nor one that is made again alike changes
what is to be done. Needs neither torch nor Snakemake.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from dprobust import shown, sources, telling
from dprobust.files import sha256
from dprobust.fingerprint import fingerprint
from dprobust.models.settings import code
from dprobust.recipe import ALIKE
from dprobust.runs import Run
from dprobust.schema import SECTIONS, ConfigError
from dprobust.showing import FORMATS
from dprobust.study import Display, Study

DATA = "data/{source}/{split}.npz"
PRETRAINED = "results/{study}/pretrained/{dataset}/features.safetensors"
PRETRAINING = "results/{study}/pretrained/{dataset}/pretrain.json"
FEATURES = "results/{study}/features/{dataset}/{view}/{split}.npz"
MODEL = "results/{study}/models/{dataset}/{run}/seed={seed}/model.safetensors"
TRAINED = "results/{study}/models/{dataset}/{run}/seed={seed}/train.json"
RECORD = "results/{study}/records/{dataset}/{run}/seed={seed}/{metric}.csv"
ARRAYS = RECORD.replace(".csv", ".npz")
PRIVACY = "results/{study}/records/{dataset}/{run}/privacy.csv"

Spec = dict[str, Any]

__all__ = ["SECTIONS", "Plan", "Spec", "key"]


def key(spec: Spec) -> str:
    """16 hexadecimal digits for a specification."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _sha256(path: Path, changed: int, size: int) -> str:
    return sha256(path)


def content(file: str, where: str) -> str:
    """The SHA-256 of a user's file, kept as long as the file stays as it is."""
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{where}: no file {file} (paths are relative to where snakemake is called)")
    state = path.stat()
    return _sha256(path, state.st_mtime_ns, state.st_size)


class Plan:
    """Files and specifications of a study.

    Args:
        study: the study.
        scripts: the folder of the jobs' scripts, whose code counts.
    """

    def __init__(self, study: Study, scripts: Path) -> None:
        self.study, self.registry, self.scripts = study, study.registry, scripts
        # A large study asks for the same thousands of times.
        stages = ("data", "material", "pretrain", "features", "train", "measure", "account", "show")
        for name in (*stages, "code", "_key", "_data_key"):
            setattr(self, name, cache(getattr(self, name)))

    def code(self, script: str, *roots: str) -> str:
        """The fingerprint of a stage: its script and what it reaches, and roots that it imports by name."""
        script = str(self.scripts / f"{script}.py")
        # How files are got, and from which mirrors of the study, does not count: checksums fix what they hold. Nor do
        # seals, which let a file be used or not.
        without = ["dprobust.sources", "dprobust.study", "dprobust.seals"]
        return fingerprint(script, *roots, packages=self.registry.packages, without=without)

    def _key(self, stage: str, *names: str) -> str:
        """The key of a stage's specification."""
        return key(getattr(self, stage)(*names))

    def files(self, pattern: str, **values: Any) -> list[str]:
        """The paths of a pattern for all combinations of values, each a value or a list."""
        paths = [pattern.replace("{study}", self.study.name)]
        for name, value in values.items():
            choices = value if isinstance(value, list) else [value]
            paths = [path.replace(f"{{{name}}}", str(choice)) for choice in choices for path in paths]
        return list(dict.fromkeys(paths))

    # -- data ---------------------------------------------------------------------------------------------------------

    def data(self, slug: str) -> Spec:
        """Getting a dataset. The identity of its files fixes the content: neither code nor mirrors belong here."""
        source = self.study.sources[slug]
        given = self.study.given(source)["sha256"]
        return {"source": source, "sha256": given, "identity": self._identity(source, given)}

    def _identity(self, source: str, given: dict[str, str]) -> Spec:
        return sources.identity(source, given, self.registry.sources)

    def data_of(self, dataset: str, split: str) -> str:
        """The file with a split of a dataset's images."""
        return DATA.format(source=sources.slug(self.study.source(dataset), self.registry.sources), split=split)

    def _data_key(self, source: str) -> str:
        return key(self._identity(source, self.study.given(source)["sha256"]))

    def material_inputs(self, material: str, item: str) -> dict[str, str]:
        """What an item of a material is made from: key -> path."""
        return dict(self.registry.material(material).inputs(item))

    def material(self, material: str, item: str) -> Spec:
        """Making an item of a material."""
        package = self.registry.materials[material]
        inputs = self.material_inputs(material, item)
        return {
            "package": package,
            "item": item,
            "inputs": {name: self._file_key(path, material) for name, path in inputs.items()},
            "code": self.code("prepare", f"{package}.make:make"),
        }

    def _file_key(self, path: str, where: str) -> str:
        """The key of a file that a metric or material needs: made here, or a user's."""
        folder, name = Path(path).parent, Path(path).stem
        if folder.parent == Path("data") and folder.name in self.registry.materials:
            return self._key("material", folder.name, name)
        if folder.parent == Path("data") and folder.name in self.study.sources:
            return self._data_key(self.study.sources[folder.name])
        return content(path, where)

    # -- training -----------------------------------------------------------------------------------------------------

    def _architecture(self, model: dict[str, Any]) -> list[str]:
        """What makes a network, of the modules that are ours to read."""
        first, *others = code(model["name"])
        return [f"{first}:layers", *filter(None, map(self._readable, others))]

    def _readable(self, module: str) -> str | None:
        """A root for a module of ours, of an extension or of the user's own; None for an installed one."""
        if module.partition(".")[0] in self.registry.roots:
            return module
        found = importlib.util.find_spec(module)
        path = Path(found.origin) if found and found.origin else None
        return str(path) if path and path.suffix == ".py" and path.is_relative_to(Path.cwd()) else None

    def public_examples(self, dataset: str, split: str) -> str:
        """What the convolutions of a dataset's networks are pre-trained on."""
        source = self.study.dataset(dataset).pretraining.dataset
        return DATA.format(source=sources.slug(source, self.registry.sources), split=split)

    def pretrain(self, dataset: str) -> Spec:
        """Pre-training the convolutions for a dataset."""
        entry = self.study.dataset(dataset)
        model = entry.model.plain()
        return {
            "public": entry.pretraining.dataset,
            "data": self._data_key(entry.pretraining.dataset),
            "train_size": entry.pretraining.train_size,
            "dropout": entry.pretraining.dropout,
            "training": entry.pretraining.training.plain(),
            "model": model,
            "unofficial": self.study.unofficial(dataset),
            "device": self.study.settings.device,
            "code": self.code("pretrain", *self._architecture(model)),
        }

    def features(self, dataset: str, split: str, view: str) -> Spec:
        """What the pre-trained convolutions make of a dataset's images."""
        entry = self.study.dataset(dataset)
        model = entry.model.plain()
        return {
            "pretrained": self._key("pretrain", dataset),
            "model": model,
            "data": self._data_key(self.study.source(dataset)),
            "draw": self._draw(dataset, split),
            "size": getattr(entry, f"{split}_size"),
            "view": view,
            "device": self.study.settings.device,
            "code": self.code("features", *self._architecture(model)),
        }

    def _draw(self, dataset: str, split: str) -> str:
        return f"{sources.slug(self.study.source(dataset), self.registry.sources)}/{split}"

    def training_inputs(self, dataset: str, run: str, seed: str | int) -> dict[str, str]:
        """What a run is trained on: images, or features of them where the convolutions are pre-trained; and the record
        of the training whose accuracy it is to reach."""
        training, reach = self.study.run(dataset, run).training, {}
        if other := training.stop and training.stop.accuracy_of:
            (reach["reach"],) = self.files(TRAINED, dataset=dataset, run=other, seed=seed)
        if not self.study.dataset(dataset).pretraining:
            return {split: self.data_of(dataset, split) for split in ("train", "test")} | reach
        (features,) = self.files(PRETRAINED, dataset=dataset)
        views = {"train": ("images", "train"), "test": ("images", "test")}
        if "flip" in training.augment:
            views["mirrored"] = ("mirrored", "train")
        named = {name: self.files(FEATURES, dataset=dataset, view=v, split=s)[0] for name, (v, s) in views.items()}
        return named | {"features": features} | reach

    def train(self, dataset: str, run: str) -> Spec:
        """Training a run, but for the seed."""
        entry, chosen = self.study.dataset(dataset), self.study.run(dataset, run)
        solved = ["dprobust.privacy:resolve"] if chosen.training.epsilon is not None else []
        reach = chosen.training.stop and chosen.training.stop.accuracy_of
        return {
            "training": chosen.training.plain(),
            "model": chosen.model,
            "data": self._data_key(self.study.source(dataset)),
            # Whole: the random streams are named by what it says, but for device and code (`dprobust.seeds.stream`).
            "pretrained": self.pretrain(dataset) if entry.pretraining else None,
            "draws": {split: self._draw(dataset, split) for split in ("train", "test")},
            "sizes": {split: getattr(entry, f"{split}_size") for split in ("train", "test")},
            "unofficial": self.study.unofficial(dataset),
            "device": self.study.settings.device,
            **({"reach": key(self.train(dataset, reach))} if reach else {}),
            **({"together": True} if self._side_by_side(chosen) else {}),
            "code": self.code(
                "train_together" if self._side_by_side(chosen) else "train", *self._architecture(chosen.model), *solved
            ),
        }

    def _side_by_side(self, run: Run) -> bool:
        """Whether a run is trained in a job with others: what a step is made of has rules with a model axis only for
        the package's own networks."""
        return self.study.settings.together > 1 and not run.training.alone and ":" not in run.model["name"]

    @cached_property
    def together(self) -> list[list[tuple[str, str, int]]]:
        """The trainings that share a job, as (dataset, run, seed), at most `together` in each."""
        shapes: dict[str, list[tuple[str, str, int]]] = {}
        for dataset in self.study.datasets:
            for name, run in self.study.trained(dataset).items():
                if self._side_by_side(run):
                    alike = [getattr(run.training, setting) for setting in ALIKE]
                    shape = key({"dataset": dataset, "model": run.model, "alike": alike})
                    shapes.setdefault(shape, []).extend((dataset, name, seed) for seed in self.study.seeds)
        size = self.study.settings.together
        return [group[i : i + size] for group in shapes.values() for i in range(0, len(group), size)]

    def of_each(self, pattern: str, group: Iterable[tuple[str, str, int]]) -> list[str]:
        """The files of a pattern of some trainings, in their order."""
        return [self.files(pattern, dataset=dataset, run=run, seed=seed)[0] for dataset, run, seed in group]

    def account(self, dataset: str, run: str) -> Spec:
        """Accounting for the privacy of a run."""
        return {
            "trained": self._key("train", dataset, run),
            "deltas": self.study.dataset(dataset).privacy.deltas,
            "code": self.code("account"),
        }

    # -- measuring ----------------------------------------------------------------------------------------------------

    def measure_inputs(self, dataset: str, run: str, seed: str | int, metric: str) -> dict[str, str]:
        """A model, the test images, and what the metric asks for and needs besides."""
        chosen = self.study.run(dataset, run)
        others = {
            f"other_{i}": self._model(dataset, other, seed)
            for i, other in enumerate(self.study.others(dataset, run, metric))
        }
        if chosen.confidence_of:
            others["confident"] = self._model(dataset, self.study.run(dataset, chosen.confidence_of), seed)
        needs = {f"needs_{name}": path for name, path in self.study.needs(dataset, metric).items()}
        asked, module = {}, self.registry.metric(metric)
        if chosen.training and getattr(module, "TRAINED", False):
            (asked["trained"],) = self.files(TRAINED, dataset=dataset, run=chosen.base, seed=seed)
        if getattr(module, "TRAIN_IMAGES", False):
            asked["train"] = self.data_of(dataset, "train")
        model = self._model(dataset, chosen, seed)
        return {"model": model, "test": self.data_of(dataset, "test"), **asked, **needs, **others}

    def _model(self, dataset: str, run: Run, seed: str | int) -> str:
        """The file with the model of a run."""
        return run.weights or self.files(MODEL, dataset=dataset, run=run.base, seed=seed)[0]

    def _made(self, dataset: str, run: Run) -> Spec:
        """How a model came about, to be read and to be told from others."""
        if run.weights:
            made_from = content(run.weights, f"runs: {run.name}: weights")
        else:
            made_from = self._key("train", dataset, run.base)
        return {"model": run.model, "weights": run.weights, "made_from": made_from}

    def measure(self, dataset: str, run: str, metric: str) -> Spec:
        """Measuring a metric of a run, but for the seed."""
        entry, chosen = self.study.dataset(dataset), self.study.run(dataset, run)
        package = self.registry.metrics[metric]
        where = f"datasets.{dataset}.metrics.{metric}"
        needs = self.study.needs(dataset, metric)
        train = {}
        if getattr(self.registry.metric(metric), "TRAIN_IMAGES", False):
            train = {"train": {"n": entry.train_size, "name": self._draw(dataset, "train")}}
        others = self.study.others(dataset, run, metric)
        more: Spec = {}
        if others:
            more["others"] = [{"run": other.name} | self._made(dataset, other) for other in others]
        if chosen.confidence_of:
            other = self.study.run(dataset, chosen.confidence_of)
            more["confidence_of"] = {"run": other.name} | self._made(dataset, other)
            others = [*others, other]
        networks = dict.fromkeys(root for model in (chosen, *others) for root in self._architecture(model.model))
        return {
            "package": package,
            "settings": getattr(entry.metrics, metric).plain(),
            **self._made(dataset, chosen),
            "temperature": chosen.temperature,
            **more,
            "data": self._data_key(self.study.source(dataset)),
            "draw": self._draw(dataset, "test"),
            "size": entry.test_size,
            "needs": {name: self._file_key(path, where) for name, path in needs.items()},
            **train,
            "unofficial": self.study.unofficial(dataset),
            "device": self.study.settings.device,
            "code": self.code("measure", f"{package}.measure:measure", f"{package}.settings:Metric", *networks),
        }

    def bounds(self, kind: str, name: str) -> tuple[int, int]:
        """Minutes and megabytes that a `metric` may take to measure, or a `material` to make."""
        module = getattr(self.registry, kind)(name)
        return getattr(module, "MINUTES", 30), getattr(module, "MEMORY", 3000)

    # -- showing ------------------------------------------------------------------------------------------------------

    def show_inputs(self, display: Display) -> dict[str, list[str] | str]:
        """Files that a display is made from."""
        records = shown.records(self.study, display)
        every = not hasattr(display.settings, "dataset")

        def paths(pattern: str) -> list[str]:
            return [self.files(pattern, dataset=d, run=r.name, seed=s, metric=m)[0] for m, d, r, s in records]

        inputs = {"records": paths(RECORD), "arrays": paths(ARRAYS) if display.asks("images") else []}
        # A figure shows epsilon of private runs; a table of privacy tells of the others, too.
        private = shown.accounted(self.study, display, private=not every)
        inputs["privacy"] = [self.files(PRIVACY, dataset=dataset, run=run)[0] for dataset, run in private]
        trained = shown.trained(self.study, display) if display.asks("training") else []
        inputs["trained"] = [
            path for d, run in trained for path in self.files(TRAINED, dataset=d, run=run, seed=self.study.seeds)
        ]
        pretrained = shown.pretrained(self.study, display) if display.asks("pretraining") else []
        inputs["pretrained"] = [self.files(PRETRAINING, dataset=dataset)[0] for dataset in pretrained]
        for metric, measured in shown.doubts(self.study, display).items():
            inputs[f"flags_{metric}"] = [
                self.files(RECORD, dataset=d, run=r.name, seed=s, metric=metric)[0] for d, r, s in measured
            ]
        if paper := getattr(display.settings, "paper", None):
            inputs["paper"] = [str(self.registry.paper(paper))]
        return inputs | {f"needs_{name}": path for name, path in shown.needs(self.study, display).items()}

    def show(self, name: str) -> Spec:
        """Drawing a figure or writing a table or page."""
        display = self.study.displays[name]
        package = self.registry.displays[display.settings.shows]
        records = shown.records(self.study, display)
        paper = getattr(display.settings, "paper", "")
        needs = shown.needs(self.study, display)
        trained = list(shown.trained(self.study, display))
        made_from: Spec = {"records": [self._key("measure", dataset, run.name, m) for m, dataset, run, _ in records]}
        doubts: Spec = {}
        for metric, measured in shown.doubts(self.study, display).items():
            made_from[f"flags_{metric}"] = [self._key("measure", d, r.name, metric) for d, r, _ in measured]
            settings = getattr(self.study.dataset(measured[0][0]).metrics, metric).brief()
            doubts[metric] = {"package": self.registry.metrics[metric], "settings": settings}
        if display.asks("privacy"):
            made_from["privacy"] = [self._key("account", *pair) for pair in shown.accounted(self.study, display)]
        if display.asks("training"):
            made_from["trained"] = [self._key("train", *pair) for pair in trained]
        if display.asks("pretraining"):
            made_from["pretrained"] = [self._key("pretrain", name) for name in shown.pretrained(self.study, display)]
        return {
            "package": package,
            "kind": display.kind,
            "settings": display.settings.brief(),
            "runs": [run.brief() for _, run in display.runs],
            "datasets": [dataset for dataset, _ in display.runs],
            "records": [[metric, dataset, run.name, seed] for metric, dataset, run, seed in records],
            "paper": paper and content(str(self.registry.paper(paper)), f"{display.key}.paper"),
            "note": self.note(display.datasets),
            "made_from": key(made_from),
            "needs": {name: self._file_key(path, display.key) for name, path in needs.items()},
            **({"flags": doubts} if doubts else {}),
            "code": self.code(
                "show",
                f"{package}.show:show",
                f"{package}.display:Display",
                *(f"{doubt['package']}.flags:flags" for doubt in doubts.values()),
                *display.modules,
            ),
        }

    def shown(self, display: Display) -> dict[str, str]:
        """Suffix -> file of a display."""
        stem = f"results/{self.study.name}/{display.section}/{display.name}"
        return {suffix: f"{stem}.{suffix}" for suffix in FORMATS[display.kind]}

    def note(self, datasets: Iterable[str]) -> str:
        """What is to be known of every number: the study's label, and data that is not the official."""
        unofficial = ", ".join(dict.fromkeys(file for dataset in datasets for file in self.study.unofficial(dataset)))
        return "; ".join(filter(None, (self.study.settings.label, unofficial and f"not the official {unofficial}")))

    def told(self, display: Display) -> Spec:
        """What a caption can tell, as `snakemake.params.told`."""
        return telling.told(self.study, display)

    def caption(self, display: Display) -> Path:
        """The caption of a display."""
        return self.registry.caption(display.settings.shows, display.name)

    def report(self, template: Path) -> Spec:
        """Writing the page of the whole study."""
        items = [
            {
                "kind": display.kind,
                "name": display.name,
                "files": list(self.shown(display).values()),
                "title": display.settings.title,
                "told": self.told(display),
                "caption": content(str(self.caption(display)), display.key),
                "explains": display.asks("explains") or 0,
                "made_from": self._key("show", display.name),
            }
            for display in self.study.displays.values()
        ]
        return {
            "title": self.study.settings.title or self.study.name,
            "label": self.study.settings.label,
            "facts": [list(fact) for fact in telling.facts(self.study)],
            "items": items,
            "template": content(str(template), "template"),
            "code": self.code("report"),
        }
