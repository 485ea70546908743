"""A study: a config, checked, as runs and figures. Needs neither torch nor Snakemake."""

import difflib
import itertools
import json
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from dprobust.datasets import SOURCES
from dprobust.errors import UserError

MODEL_INPUTS = {"lenet": (1, 28, 28), "cifarnet": (3, 32, 32)}
"""Architecture -> (C, H, W) of the images it takes."""


class ConfigError(UserError):
    """A key of the config that cannot be right."""


def number(value: float) -> str:
    """A number as it stands in paths and labels: 1 and 1.0 are both "1.0"."""
    return repr(float(value))


@dataclass(frozen=True)
class Run:
    """What a trained model is, but for dataset and seed: SGD (no arguments), or DP-SGD at sigma, C and noise rule.

    Attributes:
        sigma: noise parameter.
        clip: C, the bound on the l2 norm of an example's gradient.
        noise: "sigma*clip": noise N(0, sigma^2 C^2) on the clipped sum (Algorithm 1); "sigma": N(0, sigma^2), which
            does not depend on C (Fig 3c).
    """

    sigma: float | None = None
    clip: float | None = None
    noise: str = "sigma*clip"

    def __post_init__(self) -> None:
        if self.clip == 1:  # the two rules are one: a run is trained once
            object.__setattr__(self, "noise", "sigma*clip")

    @property
    def private(self) -> bool:
        return self.clip is not None

    @property
    def name(self) -> str:
        """As in paths: ``sgd``, ``dpsgd_sigma=1.3_clip=1.0``, ``dpsgd_sigma=1.3_clip=0.5_noise=sigma``."""
        if not self.private:
            return "sgd"
        rule = "" if self.noise == "sigma*clip" else f"_noise={self.noise}"
        return f"dpsgd_sigma={number(self.sigma)}_clip={number(self.clip)}{rule}"

    @classmethod
    def parse(cls, name: str) -> "Run":
        """The run of that name."""
        if name == "sgd":
            return cls()
        fields = dict(part.split("=", 1) for part in name.split("_")[1:])
        return cls(float(fields["sigma"]), float(fields["clip"]), fields.get("noise", "sigma*clip"))

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on the clipped sum."""
        return self.sigma * (self.clip if self.noise == "sigma*clip" else 1.0)

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise divided by C: what privacy depends on."""
        return self.sigma if self.noise == "sigma*clip" else self.sigma / self.clip


@dataclass(frozen=True)
class Display:
    """A figure or table of a study: its name, the metric it shows, of which runs of which dataset, and its entry."""

    name: str
    metric: str
    dataset: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]


class Study:
    """A checked config.

    Args:
        config: the mapping; missing keys take the schema's defaults. A dataset, figure or table that is null is left
            out (an overlay does without it), and so are the figures and tables of such a dataset.
        schema: path of the JSON schema (YAML).

    Raises:
        ConfigError: one line that names the key.
    """

    def __init__(self, config: dict[str, Any], schema: Path) -> None:
        rules = yaml.safe_load(schema.read_text(encoding="utf-8"))
        config = deepcopy(config)
        left_out = {name for name, entry in (config.get("datasets") or {}).items() if entry is None}
        for kind in ("datasets", "figures", "tables"):
            if isinstance(entries := config.get(kind), dict):
                config[kind] = {name: entry for name, entry in entries.items() if entry is not None}
        self.config = _with_defaults(config, rules, rules)
        errors = list(Draft202012Validator(rules).iter_errors(self.config))
        if errors:
            raise ConfigError(_one_line(min(errors, key=lambda error: (-len(error.path), str(error.path))), rules))
        self.name: str = self.config["study"]
        self.seeds: list[int] = self.config["seeds"]
        for kind in ("figures", "tables"):
            shown = self.config[kind].items()
            self.config[kind] = {name: entry for name, entry in shown if entry["dataset"] not in left_out}
        # Sorted: an overlay config changes the order of keys, and reports should not.
        self.figures = self._displays("figures")
        self.tables = self._displays("tables")
        for dataset, entry in self.config["datasets"].items():
            _check_dataset(dataset, entry)

    def _displays(self, kind: str) -> dict[str, Display]:
        return {name: self._display(f"{kind}.{name}", entry) for name, entry in sorted(self.config[kind].items())}

    def _display(self, key: str, entry: dict[str, Any]) -> Display:
        if entry["dataset"] not in self.config["datasets"]:
            raise ConfigError(
                f"{key}.dataset: {entry['dataset']!r} is not among the datasets ({', '.join(self.config['datasets'])})"
            )
        runs = list(_runs(entry["runs"]))
        for run in runs:
            if runs.count(run) > 1:
                raise ConfigError(f"{key}.runs: {run.name} is listed twice")
        if "losses" in entry:
            metric = self.dataset(entry["dataset"])["metrics"][entry["metric"]]
            for loss in entry["losses"]:
                if loss not in metric["losses"]:
                    raise ConfigError(
                        f"{key}.losses: {loss} is not among "
                        f"datasets.{entry['dataset']}.metrics.{entry['metric']}.losses"
                    )
        corruptions = self.dataset(entry["dataset"])["metrics"]["corruptions"]
        if entry["metric"] == "corruptions" and entry["dataset"] != "mnist" and corruptions["sets"] is None:
            raise ConfigError(
                f"datasets.{entry['dataset']}.metrics.corruptions.sets: {key} needs a file of corrupted test "
                "images; only those of mnist are made here"
            )
        if entry.get("relative") and 0 not in self.dataset(entry["dataset"])["metrics"]["fgsm"]["eps"]:
            raise ConfigError(f"{key}.relative: needs 0.0 in datasets.{entry['dataset']}.metrics.fgsm.eps")
        for name in ("paper_gap", "paper_ratio", "paper_change"):
            if entry.get(name) and len(runs) < 2:
                raise ConfigError(f"{key}.{name}: needs two runs")
        if len(means := entry.get("paper_means", [])) > len(runs):
            raise ConfigError(f"{key}.paper_means: {len(means)} values, but the figure has {len(runs)} run(s)")
        return Display(key.partition(".")[2], entry["metric"], entry["dataset"], tuple(runs), entry)

    @property
    def displays(self) -> list[Display]:
        """All figures and tables."""
        return [*self.figures.values(), *self.tables.values()]

    def dataset(self, name: str) -> dict[str, Any]:
        """The entry of a dataset."""
        return self.config["datasets"][name]

    def source(self, dataset: str) -> dict[str, Any]:
        """Where to get a dataset: `mirrors`, and the `sha256` of files that are not the official ones."""
        own = [self.dataset(dataset)] if dataset in self.config["datasets"] else []
        entries = [*own, *(p for p in map(self.pretraining, self.config["datasets"]) if p and p["dataset"] == dataset)]
        return {
            "mirrors": list(dict.fromkeys(mirror for entry in entries for mirror in entry["mirrors"])),
            "sha256": {file: digest for entry in entries for file, digest in entry["sha256"].items()},
        }

    def pretraining(self, dataset: str) -> dict[str, Any] | None:
        """How the convolutions of a dataset's networks are pre-trained; None if they are trained with the rest."""
        return self.dataset(dataset)["pretraining"]

    @property
    def pretrained(self) -> list[str]:
        """The datasets in use whose networks are pre-trained."""
        return [dataset for dataset in self.config["datasets"] if self.pretraining(dataset) and self.runs(dataset)]

    def unofficial(self, dataset: str) -> dict[str, str]:
        """Files that are in use for a dataset, pre-training included, on the word of the config: name -> SHA-256."""
        pretraining = self.pretraining(dataset)
        names = [dataset, *([pretraining["dataset"]] if pretraining else [])]
        return {file: digest for name in names for file, digest in self.source(name)["sha256"].items()}

    def runs(self, dataset: str) -> list[Run]:
        """Every run that a figure or table of the dataset shows, once."""
        shown = (display.runs for display in self.displays if display.dataset == dataset)
        return list(dict.fromkeys(itertools.chain.from_iterable(shown)))

    def sizes(self, dataset: str) -> dict[str, int]:
        """Numbers of training and test examples in use."""
        entry = self.dataset(dataset)
        return {s: entry[f"{s}_size"] or SOURCES[dataset].sizes[s] for s in ("train", "test")}

    def size(self, dataset: str, metric: str) -> int:
        """Number of test images that a metric measures."""
        limit = self.dataset(dataset)["metrics"][metric]["images"]
        return min(limit or math.inf, self.sizes(dataset)["test"])

    def facts(self) -> list[tuple[str, str]]:
        """What a reader of the study's report should know first, as (name, text)."""
        facts = [("study", self.name), ("seeds", ", ".join(map(str, self.seeds)))]
        for name, entry in self.config["datasets"].items():
            sizes, model, pretraining = self.sizes(name), entry["model"], entry["pretraining"]
            inputs = "normalised inputs" if model["normalize"] else "inputs in [0, 1]"
            layers = " - ".join(map(str, [*model["channels"], *model["hidden"], SOURCES[name].classes]))
            facts += [
                (
                    name,
                    f"{sizes['train']} training, {sizes['test']} test images; {len(self.runs(name))} runs a seed",
                ),
                ("network", f"{model['name']} {layers}, {inputs}"),
            ]
            if pretraining:
                recipe = _recipe(pretraining["training"])
                facts.append(("pre-training", f"convolutions, on {pretraining['dataset']} (public), frozen: {recipe}"))
            facts += [(algorithm, _recipe(training)) for algorithm, training in entry["training"].items()]
            if unofficial := self.unofficial(name):
                facts.append(("unofficial data", f"{', '.join(unofficial)}, by the SHA-256 in the config"))
        return facts

    def training(self, dataset: str, run: str) -> dict[str, Any]:
        """The fields of `dprobust.training.Settings` for a run."""
        parsed = Run.parse(run)
        settings = self.dataset(dataset)["training"]["dpsgd" if parsed.private else "sgd"]
        return settings | ({"clip": parsed.clip, "noise_std": parsed.noise_std} if parsed.private else {})


def _recipe(training: dict[str, Any]) -> str:
    sampling = f" ({training['sampling']})" if "sampling" in training else ""
    text = f"epochs {training['epochs']}, batch {training['batch_size']}{sampling}, lr {training['lr']:g}"
    text += f", momentum {training['momentum']:g}" if training["momentum"] else ""
    return text + (f", {' and '.join(training['augment'])}" if training["augment"] else "")


def _runs(entries: list[Any]) -> Iterator[Run]:
    for entry in entries:
        if entry == "sgd":
            yield Run()
        else:
            sigmas, clips = ([v] if not isinstance(v, list) else v for v in (entry["sigma"], entry["clip"]))
            for sigma, clip in itertools.product(sigmas, clips):
                yield Run(float(sigma), float(clip), entry["noise"])


def _check_dataset(name: str, entry: dict[str, Any]) -> None:
    source, here = SOURCES[name], f"datasets.{name}"
    for split, size in source.sizes.items():
        if (entry[f"{split}_size"] or 0) > size:
            raise ConfigError(f"{here}.{split}_size: {entry[f'{split}_size']}, but {name} has {size}")
    pretraining, model = entry["pretraining"], entry["model"]["name"]
    for algorithm, training in entry["training"].items():
        if pretraining and "crop" in training["augment"]:
            raise ConfigError(f"{here}.training.{algorithm}.augment: frozen layers have no features of crops")
    for dataset in (name, pretraining["dataset"]) if pretraining else (name,):
        if (shape := SOURCES[dataset].shape) != (taken := MODEL_INPUTS[model]):
            raise ConfigError(f"{here}.model.name: {model} takes {_by(taken)} images, {dataset} has {_by(shape)}")
    for algorithm, training in entry["training"].items():
        if training["batch_size"] > (n := entry["train_size"] or source.sizes["train"]):
            raise ConfigError(
                f"{here}.training.{algorithm}.batch_size: {training['batch_size']} is more than the {n} "
                "training examples"
            )
    for key, values in (entry["model"]["normalize"] or {}).items():
        if len(values) != source.shape[0]:
            raise ConfigError(
                f"{here}.model.normalize.{key}: {len(values)} values, but {name} has {source.shape[0]} channels"
            )
    for metric, settings in entry["metrics"].items():
        if (eps := settings.get("eps", [])) != sorted(eps):
            raise ConfigError(f"{here}.metrics.{metric}.eps: must be in ascending order")
        images = min(settings["images"] or math.inf, entry["test_size"] or source.sizes["test"])
        for sample in settings.get("samples", []):
            if sample >= images:
                raise ConfigError(f"{here}.metrics.{metric}.samples: {sample}, but images 0 to {images - 1} are in use")
    if (k := entry["metrics"]["curvature"]["eigenvalues"]) > (inputs := math.prod(source.shape)):
        raise ConfigError(f"{here}.metrics.curvature.eigenvalues: {k}, but an image of {name} has {inputs} pixels")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        return target | {key: value for key, value in schema.items() if key != "$ref"}
    return schema


def _properties(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The properties that a schema knows for an object, those of the fitting ``if``/``then`` branches among them."""
    branches = (
        _resolve(branch["then"], root)
        for branch in schema.get("allOf", [])
        if Draft202012Validator(branch["if"]).is_valid(value)
    )
    return schema.get("properties", {}) | {k: v for branch in branches for k, v in branch["properties"].items()}


def _with_defaults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Fill in the schema's defaults, in place, at every depth."""
    schema = _resolve(schema, root)
    if isinstance(value, dict):
        properties = _properties(value, schema, root)
        for key, rules in properties.items():
            if key not in value and "default" in (rules := _resolve(rules, root)):
                value[key] = deepcopy(rules["default"])
        for key, item in value.items():
            rules = properties.get(key, schema.get("additionalProperties"))
            if isinstance(rules, dict):
                _with_defaults(item, rules, root)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _with_defaults(item, schema["items"], root)
    return value


def _one_line(error: ValidationError, rules: dict[str, Any]) -> str:
    """A validation error as ``key: what was found, what was expected``."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    found, rule = error.instance, error.validator_value
    match error.validator:
        case "additionalProperties" | "unevaluatedProperties":
            known = list(_properties(found, error.schema, rules))
            extra = next((key for key in found if key not in known), "?")
            close = difflib.get_close_matches(str(extra), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            message = f"unknown key {extra!r}{hint} (known: {', '.join(known)})"
        case "type":
            expected = " or ".join([rule] if isinstance(rule, str) else rule)
            message = f"found {_short(found)}, expected {expected}"
            if "number" in expected and isinstance(found, str) and _is_number(found):
                message += " (text: write it without quotes, and 1e-6 as 1.0e-6)"
        case "enum" | "const":
            allowed = rule if isinstance(rule, list) else [rule]
            message = f"found {_short(found)}, expected one of {', '.join(map(str, allowed))}"
        case "required":
            message = f"missing key {next(key for key in rule if key not in found)!r}"
        case "uniqueItems":
            twice = next(v for i, v in enumerate(found) if v in found[:i])
            message = f"{_short(twice)} is listed twice"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            relation = {
                "minimum": "at least",
                "exclusiveMinimum": "more than",
                "maximum": "at most",
                "exclusiveMaximum": "less than",
            }[error.validator]
            message = f"found {_short(found)}, must be {relation} {rule}"
        case "minItems":
            message = f"needs at least {rule} item(s)"
        case "pattern":
            message = f"found {_short(found)}, must match {rule}"
        case _:
            message = _short(error.message)
    return f"{where or '(top level)'}: {message}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and " " in value else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
