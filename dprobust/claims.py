"""Claims: what a paper, or its reader, states of runs, as data. A file of claims is YAML; claims/paper.yaml is one."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import yaml
from annotated_types import MaxLen, MinLen
from pydantic import Field, ValidationError, create_model, model_validator
from pydantic_core import PydanticCustomError

from dprobust.errors import UserError
from dprobust.quantity import QuantitySettings, check_runs
from dprobust.registry import Registry
from dprobust.runs import Entry, Run
from dprobust.schema import ClaimsOf, ConfigError, one_line, validated
from dprobust.settings import Count, NonNegative, Settings, fault

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Text = Annotated[str, MinLen(1), MaxLen(400)]
Record = tuple[str, str, Run]
"""(metric, dataset, run)."""


class Stated(Settings):
    """What is stated of a quantity."""

    direction: Literal["above", "below", "within"] | None = None
    """The quantity is above or below `than`, or within `margin` of it; null: only a value is stated."""
    than: float = 0.0
    """What it is compared with; of a ratio 1."""
    margin: NonNegative = 0.0
    """A difference from `than` that is too small to matter, in the quantity's unit; of a value alone half the width of
    the widest prediction interval that it may be judged by."""
    value: float | None = None
    """The value stated."""
    misprint: str = ""
    """What is wrong with what is printed; nothing is judged by a misprint."""
    theirs: Count | None = None
    """Test images that the value was measured on; null means all."""

    @model_validator(mode="after")
    def _states_something(self) -> "Stated":
        if self.direction is None and self.value is None:
            raise fault("states nothing: give a direction, a value or both")
        if not self.margin and (self.direction is None or self.direction == "within"):
            raise fault("margin: needed for a value alone and for `within`")
        return self


class Measurement(Settings):
    """A quantity of runs, as a job computes it."""

    package: str
    """Module of the quantity."""
    settings: dict[str, Any]
    """Its arguments."""
    dataset: str
    runs: list[str]
    """Names of the runs."""


class Part(Stated):
    """One of the statements that a claim consists of, as it is judged."""

    population: int | None = None
    """Test images that there are."""
    paper: Measurement
    """As the paper measures it."""
    strongest: Measurement | None = None
    """By the strongest measurement here."""


class Claim(Settings):
    """A claim as it is judged."""

    id: str
    source: str
    section: str
    says: str
    note: str = ""
    shown: str = ""
    """The display that shows it."""
    missing: str = ""
    """Why it is not measured here; empty if it is."""
    stated: list[Stated] = []
    """What it states, part by part."""
    parts: list[Part] = []
    """The same with what they are measured by; none where they are not measured."""


def file_class(registry: Registry) -> type[Settings]:
    """The class of a file of claims, of all quantities in the registry."""
    kinds = [_of(registry, name) for name in registry.quantities]
    union = kinds[0]
    for kind in kinds[1:]:
        union = union | kind
    quantity = Annotated[union, Field(discriminator="name")]
    part = create_model(
        "StatedPart",
        __base__=Stated,
        __doc__="One of the statements that a claim consists of: it holds if all of them do.",
        quantity=(quantity, Field(description="What is measured as the paper measures it.")),
        strongest=(
            dict[str, Any] | None,
            Field(
                default=None,
                description="What differs in the strongest measurement here - arguments of the quantity, or another "
                "quantity with its `name`; null where there is none stronger.",
            ),
        ),
        runs=(Annotated[list[Entry], MinLen(1)] | None, Field(default=None, description="Instead of the claim's.")),
    )
    claim = create_model(
        "StatedClaim",
        __base__=Settings,
        __doc__="A claim.",
        id=(
            Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=20)],
            Field(description="Its name."),
        ),
        section=(str, Field(default="", description="Where it stands.")),
        says=(Text, Field(description="The claim in words.")),
        note=(str, Field(default="", description="What must be known of it.")),
        dataset=(str, Field(default="mnist", description="Key of the dataset.")),
        runs=(Annotated[list[Entry], MinLen(1)], Field(description="As in figures.")),
        shown=(str, Field(default="", description="Name of the figure, table or page that shows it.")),
        parts=(Annotated[list[part], MinLen(1)], Field(description="What it states.")),
    )
    return create_model(
        "Claims",
        __base__=Settings,
        __doc__="A file of claims.",
        source=(Text, Field(description="Whose claims they are.")),
        claims=(Annotated[list[claim], MinLen(1)], Field(description="The claims.")),
    )


def _of(registry: Registry, name: str) -> type[QuantitySettings]:
    cls = registry.quantity(name).Quantity
    about = Field(description=QuantitySettings.model_fields["name"].description)
    return create_model(f"quantity_{name}", __base__=cls, __doc__=cls.__doc__, name=(Literal[name], about))


def read(file: str, registry: Registry) -> Any:
    """A file of claims, checked.

    Raises:
        ConfigError: one line that names file and key.
    """
    path = registry.claims(file)
    if path is None:
        raise ConfigError(f"claims: no file {file} here, in an extension or in the project")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"claims: {file}: {' '.join(str(error).split())}") from None
    try:
        found = validated(file_class(registry), content)
    except ConfigError as error:
        raise ConfigError(f"claims: {file}: {error}") from None
    names = [claim.id for claim in found.claims]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ConfigError(f"claims: {file}: {twice} stands there twice")
    return found


class Missing(Exception):
    """What a claim needs and this study does not measure."""


class Claims:
    """The claims of a study and what they need.

    Args:
        study: the study (`dprobust.study.Study`), its datasets checked.
        shown: the records that displays ask for, (metric, dataset, run name), and for every run ("", dataset, name).
        displays: names of the displays.

    Attributes:
        claims: those of all files.
        records: the records they need.
        accounts: (dataset, run) whose privacy they need.
        runs: (dataset, run), once each.
        modules: of the quantities.
    """

    def __init__(self, study: Any, shown: Iterable[tuple[str, str, str]], displays: Iterable[str]) -> None:
        self.study, self.registry, self.shown = study, study.registry, set(shown)
        self.asked: ClaimsOf = study.settings.claims
        self.displays = set(displays)
        self.claims: list[Claim] = []
        self.records: dict[Record, None] = {}
        self.accounts: dict[tuple[str, Run], None] = {}
        self.runs: dict[tuple[str, Run], None] = {}
        for file in self.asked.files:
            content = read(file, self.registry)
            for claim in content.claims:
                self.claims.append(self._claim(f"claims: {file}: {claim.id}", content.source, claim))
        names = [claim.id for claim in self.claims]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise ConfigError(f"claims: {twice} stands in two files; rename one")

    @property
    def modules(self) -> list[str]:
        used = [m for claim in self.claims for part in claim.parts for m in (part.paper, part.strongest) if m]
        return sorted({measurement.package for measurement in used})

    def _claim(self, key: str, source: str, claim: Any) -> Claim:
        told = {name: getattr(claim, name) for name in ("id", "section", "says", "note")}
        told |= {"source": source, "shown": claim.shown if claim.shown in self.displays else ""}
        told["stated"] = [Stated(**{name: getattr(part, name) for name in Stated.model_fields}) for part in claim.parts]
        if claim.dataset not in self.study.datasets:
            return Claim(**told, missing=f"no dataset {claim.dataset} in this study")
        planned: list[tuple[Part, list]] = []
        try:
            for i, part in enumerate(claim.parts):
                planned.append(self._part(f"{key}: parts[{i}]", claim, part))
        except Missing as error:
            return Claim(**told, missing=str(error))
        for _, needs in planned:
            for dataset, run, metrics, privacy in needs:
                self.runs[dataset, run] = None
                self.records |= {(metric, dataset, run): None for metric in metrics}
                if privacy:
                    self.accounts[dataset, run] = None
        return Claim(**told, parts=[part for part, _ in planned])

    def _part(self, key: str, claim: Any, part: Any) -> tuple[Part, list]:
        entry = part if part.runs else claim
        entry = _Runs(dataset=claim.dataset, runs=entry.runs)
        runs = [run for _, run in self.study.runs_of(key, entry)]
        paper, needs = self._measurement(f"{key}.quantity", claim.dataset, runs, part.quantity)
        strongest = None
        if part.strongest is not None:
            quantity = self._strongest(f"{key}.strongest", part)
            try:
                strongest, more = self._measurement(f"{key}.strongest", claim.dataset, runs, quantity)
                needs = needs + more
            except Missing:
                strongest = None
        stated = {name: getattr(part, name) for name in Stated.model_fields}
        known = self.study.facts_of(claim.dataset).test
        return Part(**stated, population=known, paper=paper, strongest=strongest), needs

    def _strongest(self, key: str, part: Any) -> QuantitySettings:
        name = part.strongest.get("name", part.quantity.name)
        if name not in self.registry.quantities:
            raise ConfigError(f"{key}.name: {name!r} is not among {', '.join(self.registry.quantities)}")
        own = part.quantity.brief() if name == part.quantity.name else {}
        settings = own | part.strongest | {"name": name}
        try:
            return self.registry.quantity(name).Quantity(**settings)
        except ValidationError as error:
            raise ConfigError(one_line(error, settings, key)) from None

    def _measurement(self, key: str, dataset: str, runs: list[Run], quantity: Any) -> tuple[Measurement, list]:
        """The measurement, and what it needs of each run.

        Raises:
            ConfigError: it cannot be.
            Missing: the study does not measure it, and claims are not to decide what it measures.
        """
        entry, only = self.study.datasets[dataset], self.asked.measured_only
        metrics, privacy = type(quantity).metrics, type(quantity).privacy
        if only:
            there = [run for run in runs if all((m, dataset, run.name) in self.shown for m in metrics or ("",))]
            lost = [run.name for run in runs if run not in there]
            if quantity.compare == "trend" and len(there) > 1:
                runs, lost = there, []
            if lost:
                raise Missing(f"no {' and '.join(metrics) or 'run'} of {', '.join(lost)} in this study")
        measured = {metric: getattr(entry.metrics, metric) for metric in metrics}
        module = self.registry.quantity(quantity.name)
        try:
            check_runs(quantity, runs)
            if check := getattr(module, "check", None):
                check(quantity, measured)
            delta = getattr(quantity, "delta", None)
            if privacy and delta not in entry.privacy.deltas:
                raise fault(f"delta: {delta:g} is not among datasets.{dataset}.privacy.deltas")
        except (PydanticCustomError, UserError) as error:
            if only:
                raise Missing(str(error)) from None
            raise ConfigError(f"{key}: {error}") from None
        settings = quantity.brief() | {"name": quantity.name}
        package = self.registry.quantities[quantity.name]
        found = Measurement(package=package, settings=settings, dataset=dataset, runs=[run.name for run in runs])
        return found, [(dataset, run, metrics, privacy) for run in runs]


class _Runs(Settings):
    dataset: str
    runs: list[Entry]
