"""A study: a config, checked, as datasets, runs and displays. Needs neither torch nor Snakemake."""

import difflib
import itertools
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from dprobust import sources
from dprobust.agreement import check_confidences, check_coupled, check_stops, named
from dprobust.claims import Claims
from dprobust.errors import UserError
from dprobust.models.settings import settings_class
from dprobust.registry import Registry
from dprobust.runs import Run, expand
from dprobust.schema import SECTIONS, ConfigError, one_line, study_class, validated
from dprobust.settings import Facts, Settings

RULES = frozenset({"all", "models", *SECTIONS, "get", "prepare", "pretrain", "features", "train", "measure", "account"})
CLAIMS = "claims"
"""Name, section and kind of the display that judges claims."""
RESERVED = RULES | {"report", CLAIMS}
"""Names that are rules of the workflow, and so no names of displays."""


@dataclass(frozen=True)
class Display:
    """A figure, table or page of a study.

    Attributes:
        name: its key in the config, and the name of its files.
        section: "figures", "tables" or "pages".
        target: name of its rule.
        settings: its entry, typed.
        runs: the runs it shows, as (dataset, run).
        measured: the records it shows, as (metric, dataset, run).
        accounts: the runs whose privacy it shows, as (dataset, run); None: those that are trained, as its kind asks.
        modules: code besides its kind's.
    """

    name: str
    section: str
    target: str
    settings: Any
    runs: tuple[tuple[str, Run], ...]
    measured: tuple[tuple[str, str, Run], ...] = ()
    accounts: tuple[tuple[str, Run], ...] | None = None
    modules: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return SECTIONS.get(self.section, self.section)

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def datasets(self) -> list[str]:
        """The datasets of its runs, once each."""
        own = [self.settings.dataset] if hasattr(self.settings, "dataset") else []
        return list(dict.fromkeys([*own, *(dataset for dataset, _ in self.runs)]))

    def asks(self, what: str) -> Any:
        """Whether it wants the records called `privacy`, `training`, `pretraining` or `images`; its `metrics`."""
        return getattr(type(self.settings), what, ())


class Study:
    """A checked config.

    Args:
        config: the mapping; missing keys take the defaults of the typed settings. A dataset, figure, table or page that
            is null is left out (an overlay does without it), and so are the figures of such a dataset.

    Raises:
        ConfigError: one line that names the key.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        config = deepcopy(dict(config))
        extensions = config.get("extensions") or []
        if not (isinstance(extensions, list) and all(isinstance(folder, str) for folder in extensions)):
            raise ConfigError(f"extensions: found {extensions!r}, expected a list of folders")
        try:
            self.registry = Registry(extensions)
        except UserError as error:
            raise ConfigError(str(error)) from None
        left_out: set[str] = set()
        if isinstance(datasets := config.get("datasets"), dict):
            left_out = {name for name, entry in datasets.items() if entry is None}
            config["datasets"] = {name: entry for name, entry in datasets.items() if entry is not None}
        self._leave_out(config, left_out)
        self.settings = validated(study_class(self.registry), config)
        self.name: str = self.settings.study
        self.seeds: list[int] = self.settings.seeds
        self.datasets: dict[str, Any] = self.settings.datasets
        for name in self.datasets:
            self._check_dataset(name)
        self.displays = self._displays()
        for name in self.datasets:
            self._ask(f"datasets.{name}: runs", check_coupled, self.runs(name))
            self._ask(f"datasets.{name}: runs", check_stops, self.trained(name))
            self._ask(f"datasets.{name}: runs", check_confidences, self.models(name))
        for metric, dataset, run in dict.fromkeys(of for display in self.displays.values() for of in display.measured):
            self.others(dataset, run.name, metric)
        self._check_names()

    def _leave_out(self, config: dict[str, Any], datasets: set[str]) -> None:
        """Take out displays that are null, of the `datasets` left out, or not among `only`."""
        sections = {name: entries for name in SECTIONS if isinstance(entries := config.get(name), dict)}
        only = config.get("only")
        if isinstance(only, list):
            known = [*(name for entries in sections.values() for name in entries), CLAIMS]
            for name in only:
                if name not in known:
                    near = difflib.get_close_matches(str(name), known, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ConfigError(f"only: there is no figure, table or page {name!r}{hint}")
            if CLAIMS not in only:
                config[CLAIMS] = None
        for section, entries in sections.items():
            config[section] = {
                name: entry
                for name, entry in entries.items()
                if entry is not None
                and (not isinstance(only, list) or name in only)
                and not (isinstance(entry, dict) and self._dataset_of(entry) in datasets)
            }

    def _dataset_of(self, entry: dict[str, Any]) -> str | None:
        """The dataset of a display's entry that is not checked yet; None for a display of all datasets."""
        if "dataset" in entry or entry.get("shows") not in self.registry.displays:
            return entry.get("dataset")
        field = self.registry.display(entry["shows"]).Display.model_fields.get("dataset")
        return field and field.default

    def _displays(self) -> dict[str, Display]:
        found: list[Display] = []
        # Sorted: an overlay config changes the order of keys, and reports should not.
        entries = [
            (section, name, entry)
            for section in SECTIONS
            for name, entry in sorted(getattr(self.settings, section).items())
        ]
        for section, name, entry in entries:
            runs = self.runs_of(f"{section}.{name}", entry) if hasattr(entry, "runs") else ()
            found.append(Display(name, section, entry.target or name, entry, tuple(runs)))
        claims = self._claims(found)
        every = tuple(dict.fromkeys(pair for display in [*found, *claims] for pair in display.runs))
        by_dataset = tuple(pair for dataset in self.datasets for pair in every if pair[0] == dataset)
        displays = {}
        for display in [*claims, *found]:
            if display.section == CLAIMS:
                displays[display.name] = display
                continue
            if not hasattr(display.settings, "dataset"):
                display = replace(display, runs=by_dataset)
            display = replace(display, measured=_measured(display))
            self._check_display(display)
            if display.name in displays:
                raise ConfigError(f"{display.key}: there is {displays[display.name].key} of the same name; rename one")
            displays[display.name] = display
        return displays

    def _claims(self, displays: list[Display]) -> list[Display]:
        """The display that judges the claims, if there are any; `displays` show runs of their own or every run."""
        if not self.settings.claims.files:
            return []
        every = list(dict.fromkeys(pair for display in displays for pair in display.runs))
        shown = [("", dataset, run.name) for dataset, run in every]
        for display in displays:
            runs = display.runs if hasattr(display.settings, "dataset") else every
            shown += [(metric, dataset, run.name) for metric in display.asks("metrics") for dataset, run in runs]
        claims = Claims(self, shown, (display.name for display in displays))
        settings = self.registry.display(CLAIMS).Display(
            shows=CLAIMS, title="Claims and verdicts", claims=[claim.plain() for claim in claims.claims]
        )
        for metric, dataset, _ in claims.records:
            self._check_metric(dataset, metric)
        asked = tuple(claims.runs), tuple(claims.records), tuple(claims.accounts), tuple(claims.modules)
        return [Display(CLAIMS, CLAIMS, CLAIMS, settings, *asked)]

    def runs_of(self, key: str, entry: Any) -> list[tuple[str, Run]]:
        """The runs of an entry with `dataset` and `runs`, checked; `key` is where it stands."""
        if entry.dataset not in self.datasets:
            known = ", ".join(self.datasets)
            raise ConfigError(f"{key}.dataset: {entry.dataset!r} is not among the datasets ({known})")
        dataset = self.datasets[entry.dataset]
        defaults = {name: getattr(dataset.training, name) for name in type(dataset.training).model_fields}
        try:
            runs = expand(entry.runs, defaults, dataset.model.plain(), dataset.privacy.deltas[0], self._network)
        except (PydanticCustomError, UserError) as error:
            raise ConfigError(f"{key}.runs: {error}") from None
        except ValidationError as error:
            raise ConfigError(f"{key}.runs: {one_line(error, {}).partition(': ')[2]}") from None
        for run in runs:
            here = f"{key}.runs: {run.name}"
            self._ask(here, settings_class(run.model["name"])(**run.model).fits, self.facts_of(entry.dataset))
            if run.training:
                self._check_training(entry.dataset, here, run.training)
        return [(entry.dataset, run) for run in runs]

    def _network(self, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The checked settings of a network: changes put over settings, or over nothing for another architecture."""
        if not changes:
            return dict(settings)
        own = {**changes}
        if changes.get("name", settings["name"]) == settings["name"]:
            own = {**settings, **changes}
        elif "normalize" not in changes:
            own["normalize"] = settings.get("normalize")
        return settings_class(own["name"]).model_validate(own).plain()

    # -- what there is ------------------------------------------------------------------------------------------------

    def section(self, section: str) -> list[Display]:
        """The figures, tables or pages."""
        return [display for display in self.displays.values() if display.section == section]

    def dataset(self, name: str) -> Any:
        """The settings of a dataset."""
        return self.datasets[name]

    @cached_property
    def _by_dataset(self) -> dict[str, dict[str, Run]]:
        pairs = dict.fromkeys(itertools.chain.from_iterable(display.runs for display in self.displays.values()))
        return {name: {run.name: run for dataset, run in pairs if dataset == name} for name in self.datasets}

    def runs(self, dataset: str) -> list[Run]:
        """Every run that a display of the dataset shows, once."""
        return list(self._by_dataset[dataset].values())

    @cached_property
    def _trained(self) -> dict[str, dict[str, Run]]:
        return {
            dataset: {
                run.base: run.model_copy(update={"name": run.base, "temperature": 1.0, "confidence_of": ""})
                for run in self.runs(dataset)
                if run.training
            }
            for dataset in self.datasets
        }

    def trained(self, dataset: str) -> dict[str, Run]:
        """The runs that are trained, by name: each once, without temperature."""
        return self._trained[dataset]

    def models(self, dataset: str) -> dict[str, Run]:
        """The runs that are shown or trained, by name."""
        return self._trained[dataset] | self._by_dataset[dataset]

    def others(self, dataset: str, run: str, metric: str) -> list[Run]:
        """The runs whose models a metric asks for to measure one."""
        models, asks = self.models(dataset), getattr(self.registry.metric(metric), "others", None)
        if not asks:
            return []
        settings = getattr(self.datasets[dataset].metrics, metric)
        names = asks(settings, models[run].base, sorted(name for name in models if not models[name].scaled))
        for name in names:
            self._ask(f"datasets.{dataset}.metrics.{metric}", named, f"run {name}", name, models)
        return [models[name] for name in names]

    def run(self, dataset: str, name: str) -> Run:
        """A run by its name, shown or trained."""
        return self.models(dataset)[name]

    def seeds_of(self, run: Run) -> list[int]:
        """Given weights are one network: they have the first seed only."""
        return self.seeds if run.training else self.seeds[:1]

    def source(self, dataset: str) -> str:
        """Where the images of a dataset come from."""
        return self.datasets[dataset].source or dataset

    @cached_property
    def sources(self) -> dict[str, str]:
        """Folder under data/ -> source, for all data in use, public data included."""
        used = [self.source(name) for name in self.datasets]
        used += [entry.pretraining.dataset for entry in self.datasets.values() if entry.pretraining]
        used += [source for material in self.registry.materials for source in self._made_from(material)]
        return {sources.slug(source, self.registry.sources): source for source in used}

    def _made_from(self, material: str) -> list[str]:
        """The datasets that a material is made from, which have the names of their folders."""
        module = self.registry.material(material)
        files = [Path(path) for item in module.ITEMS for path in module.inputs(item).values()]
        return sorted({file.parent.name for file in files} - set(self.registry.materials))

    def mirrors_of(self, material: str) -> list[str]:
        """What the config says of the mirrors of the datasets that a material is made from."""
        return [mirror for source in self._made_from(material) for mirror in self.given(source)["mirrors"]]

    def given(self, source: str) -> dict[str, Any]:
        """What the config says of a source: `mirrors`, and the `sha256` of files that are not the official ones."""
        entries = [entry for name, entry in self.datasets.items() if self.source(name) == source]
        public = [entry.pretraining for entry in self.datasets.values() if entry.pretraining]
        entries += [entry for entry in public if entry.dataset == source]
        return {
            "mirrors": list(dict.fromkeys(mirror for entry in entries for mirror in entry.mirrors)),
            "sha256": {file: digest for entry in entries for file, digest in entry.sha256.items()},
        }

    def unofficial(self, dataset: str) -> dict[str, str]:
        """Files that are in use for a dataset, pre-training included, on the word of the config: name -> SHA-256."""
        pretraining = self.datasets[dataset].pretraining
        used = [self.source(dataset), *([pretraining.dataset] if pretraining else [])]
        return {file: digest for source in used for file, digest in self.given(source)["sha256"].items()}

    def facts_of(self, dataset: str) -> Facts:
        """What is known of a dataset's data in use before the files are there."""
        entry, facts = self.datasets[dataset], sources.facts(self.source(dataset), self.registry.sources)
        return facts.model_copy(
            update={"train": entry.train_size or facts.train, "test": entry.test_size or facts.test}
        )

    def images(self, dataset: str, metric: str) -> int | None:
        """Number of test images that a metric measures; None if only the data tell."""
        limits = (getattr(self.datasets[dataset].metrics, metric).images, self.facts_of(dataset).test)
        return min((limit for limit in limits if limit), default=None)

    # -- checks -------------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        taken: dict[str, str] = {}
        for display in self.displays.values():
            if display.target in RESERVED and display.section in SECTIONS:
                key = f"{display.key}.target" if display.settings.target else display.key
                raise ConfigError(f"{key}: {display.target} is a rule of the workflow; give it a `target` or a name")
            if display.target in taken:
                raise ConfigError(f"{display.key}: {taken[display.target]} has the target {display.target!r}, too")
            taken[display.target] = display.key

    def _check_dataset(self, name: str) -> None:
        entry, here, source = self.datasets[name], f"datasets.{name}", self.source(name)
        known = self._known(source, f"{here}.source")
        for split, size in (("train", known.train), ("test", known.test)):
            asked = getattr(entry, f"{split}_size")
            if asked and size and asked > size:
                raise ConfigError(f"{here}.{split}_size: {asked}, but {source} has {size}")
        if entry.pretraining:
            public = self._known(entry.pretraining.dataset, f"{here}.pretraining.dataset")
            if entry.pretraining.dataset == source:
                raise ConfigError(f"{here}.pretraining.dataset: {source} is what is to be kept private")
            if public.shape and known.shape and public.shape != known.shape:
                found = f"{entry.pretraining.dataset} has {_by(public.shape)} images, {source} {_by(known.shape)}"
                raise ConfigError(f"{here}.pretraining.dataset: {found}")
            if ":" in entry.model.name:
                raise ConfigError(f"{here}.pretraining: {entry.model.name} has no layer `flatten` to freeze up to")
        self._ask(f"{here}.model", entry.model.fits, known)
        for algorithm, training in entry.training:
            self._check_training(name, f"{here}.training.{algorithm}", training)

    def _known(self, source: str, key: str) -> Facts:
        try:
            return sources.facts(source, self.registry.sources)
        except UserError as error:
            raise ConfigError(f"{key}: {error}") from None

    def _check_training(self, dataset: str, key: str, training: Settings) -> None:
        known, entry = self.facts_of(dataset), self.datasets[dataset]
        stop = getattr(training, "stop", None)
        wrong = getattr(training, "mislabelled", 0)
        if known.train and training.batch_size > (n := known.train - (stop.holdout if stop else 0) - wrong):
            takers = [name for name, taken in (("stop.holdout", stop), ("mislabelled", wrong)) if taken]
            verb = "leave" if len(takers) > 1 else "leaves"
            held = f" that {' and '.join(takers)} {verb} of {known.train}" if takers else ""
            raise ConfigError(f"{key}.batch_size: {training.batch_size} is more than the {n} training examples{held}")
        if entry.pretraining and "crop" in training.augment:
            raise ConfigError(f"{key}.augment: frozen layers have no features of crops")

    def _check_display(self, display: Display) -> None:
        if hasattr(display.settings, "dataset") and display.settings.dataset not in self.datasets:
            known = ", ".join(self.datasets)
            raise ConfigError(
                f"{display.key}.dataset: {display.settings.dataset!r} is not among the datasets ({known})"
            )
        paper = getattr(display.settings, "paper", "")
        if paper and ("/" in paper or self.registry.paper(paper) is None):
            raise ConfigError(f"{display.key}.paper: no file {paper} in workflow/paper or an extension's paper folder")
        for metric in display.asks("metrics"):
            if metric not in self.registry.metrics:
                raise ConfigError(f"{display.key}.shows: it asks for the metric {metric}, which there is not")
            for dataset in display.datasets:
                self._check_metric(dataset, metric)
        check = getattr(self.registry.display(display.settings.shows), "check", None)
        if check:
            for dataset in display.datasets:
                runs = [run for of, run in display.runs if of == dataset]
                measured = {name: getattr(self.datasets[dataset].metrics, name) for name in display.asks("metrics")}
                self._ask(display.key, check, display.settings, runs, measured)

    def _check_metric(self, dataset: str, metric: str) -> None:
        settings = getattr(self.datasets[dataset].metrics, metric)
        if check := getattr(self.registry.metric(metric), "check", None):
            self._ask(f"datasets.{dataset}.metrics.{metric}", check, settings, self.facts_of(dataset))
        self.needs(dataset, metric)

    def needs(self, dataset: str, metric: str) -> dict[str, str]:
        """Files that a metric needs besides model and images: key -> path."""
        needs = getattr(self.registry.metric(metric), "needs", None)
        settings = getattr(self.datasets[dataset].metrics, metric)
        key = f"datasets.{dataset}.metrics.{metric}"
        return dict(self._ask(key, needs, settings, self.source(dataset))) if needs else {}

    @staticmethod
    def _ask(key: str, function: Any, *arguments: Any) -> Any:
        """A function of an entry's own module; what it finds wrong is told with the key."""
        try:
            return function(*arguments)
        except (PydanticCustomError, UserError) as error:
            raise ConfigError(f"{key}: {error}") from None


def _measured(display: Display) -> tuple[tuple[str, str, Run], ...]:
    return tuple((metric, dataset, run) for metric in display.asks("metrics") for dataset, run in display.runs)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
