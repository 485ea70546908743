"""Runs: what a trained model is, but for dataset and seed. The one place where runs are named, ordered and labelled.

A run is an algorithm and what differs from the dataset's settings. Its name, as in paths, says just that, and nothing
parses a name back: whoever needs to know more of a run has the `Run`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import Discriminator, Field, Tag, ValidationError, create_model

from dprobust.recipe import Statement, Stop, Training
from dprobust.settings import DatasetDisplay, Positive, Settings, Unique, fault

ALGORITHMS = {"sgd": "SGD", "dpsgd": "DP-SGD"}
"""Algorithm -> its name in labels."""
LABELS = {
    "lr": "lr",
    "epochs": "epochs",
    "batch_size": "batch",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "temperature": "temperature",
}
"""Setting -> its name in labels, where it is not its own."""
CONFIDENCE_OF = "temperature.confidence_of"
LONGEST = 180
"""Characters that a name may have, without a temperature: file systems take 255 bytes."""
LONGEST_SCALED = 240
"""The same, with it."""


class Run(Settings):
    """A run. Runs of the same name are the same run.

    Attributes are plain values, so that ``Run(**run.plain())`` gives it back in another process.
    """

    name: str
    """As in paths: ``sgd``, ``dpsgd_sigma=1.3_clip=1.0``, ``dpsgd_sigma=1.3_clip=0.5_noise=sigma_lr=0.1``."""
    algorithm: Literal["sgd", "dpsgd", "weights"]
    """How it was trained; `weights`: elsewhere."""
    training: Training | None = None
    """How to train it; None for given weights."""
    model: dict[str, Any] = {}
    """Settings of its network."""
    own: dict[str, Any] = {}
    """What differs from the dataset's settings, nested settings by their dotted key."""
    base: str = ""
    """Name of the run whose trained model it is: its own, but for a `temperature`."""
    temperature: float = 1.0
    """The logits are divided by this after training."""
    confidence_of: str = ""
    """Name of the run whose mean confidence its own is brought to, by the temperature that does so."""
    weights: str | None = None
    """File with the weights of a network trained elsewhere."""
    privacy: Statement | Literal["none", "not known"] = "not known"
    """Of given weights: as their maker states it."""
    title: str = ""
    """Label that the user gives it."""

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.name == other.name

    @property
    def private(self) -> bool:
        """Whether it is shown as trained with differential privacy."""
        return self.algorithm == "dpsgd" or (self.algorithm == "weights" and self.privacy != "none")

    @property
    def scaled(self) -> bool:
        """Whether its logits are divided after training."""
        return self.temperature != 1 or bool(self.confidence_of)

    @property
    def sigma(self) -> float | None:
        return self.training and self.training.sigma

    @property
    def clip(self) -> float | None:
        return self.training and self.training.clip

    @property
    def noise(self) -> str:
        return self.training.noise if self.training else "sigma*clip"

    @property
    def setting(self) -> str:
        """What tells it from other runs of its algorithm, as text: ``σ = 1.3, C = 1, lr = 0.1``; empty for none."""
        return _setting(self.own)

    @property
    def scaling(self) -> list[str]:
        """What is done to its logits, as text, of given weights; empty for nothing."""
        if self.confidence_of:
            return [f"as confident as {self.own[CONFIDENCE_OF]}"]
        return [f"T = {self.temperature:g}"] if self.temperature != 1 else []

    def label(self, epsilon: float | None = None) -> str:
        """In a legend: algorithm, settings, and for a private run its epsilon."""
        if self.algorithm == "weights":
            name = self.title or self.base.removeprefix("weights=")
            text = ", ".join([name, *self.scaling])
        else:
            head = ALGORITHMS[self.algorithm]
            text = self.title or " ".join(filter(None, (head, self.setting)) if self.private else ())
            text = text or ", ".join(filter(None, (head, self.setting)))
        if epsilon is None:
            epsilon = self.privacy.epsilon if isinstance(self.privacy, Statement) else self.own.get("epsilon")
        if not self.private or epsilon is None:
            return text
        shown = f"{epsilon:.3g}" if epsilon < 1000 else f"{epsilon:.0f}"
        return f"{text} (ε = {'∞' if math.isinf(epsilon) else shown})"


def _setting(own: Mapping[str, Any]) -> str:
    parts = [f"σ = {own['sigma']:g}"] if "sigma" in own else []
    parts += [f"C = {own['clip']:g}"] if "clip" in own else []
    parts += ["noise σ"] if own.get("noise") == "sigma" else []
    parts += [f"stopped at {100 * own['stop.accuracy']:g} %"] if "stop.accuracy" in own else []
    parts += [f"stopped at the accuracy of {own['stop.accuracy_of']}"] if "stop.accuracy_of" in own else []
    parts += [f"as confident as {own[CONFIDENCE_OF]}"] if CONFIDENCE_OF in own else []
    told = ("sigma", "clip", "noise", "epsilon", "stop.accuracy", "stop.accuracy_of", CONFIDENCE_OF)
    # epsilon: `Run.label`
    return ", ".join(
        parts + [f"{LABELS.get(key, key)} = {as_text(value)}" for key, value in own.items() if key not in told]
    )


def number(value: float) -> str:
    """A number as it stands in paths: 1 and 1.0 are both "1.0"."""
    return repr(float(value))


def as_text(value: Any) -> str:
    """A setting's value in labels."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "+".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _part(value: Any) -> str:
    """A value as it stands in paths."""
    if isinstance(value, float):
        return number(value)
    return "".join(c if c.isalnum() or c in ".+-_" else "-" for c in as_text(value))


class Matched(Settings):
    """In place of a number: the temperature that a run's confidence asks for."""

    confidence_of: Annotated[str, MinLen(1)]
    """Name, as in paths, of another run of the study, for example dpsgd_sigma=1.3_clip=1.0: the temperature is the one
    at which the mean of the largest softmax probability over the test images in use is that of the other run's model of
    the same seed."""


Temperature = Positive | Annotated[list[Positive], MinLen(1), Unique] | Matched


class WeightsEntry(Settings):
    """A network trained elsewhere."""

    weights: Annotated[str, MinLen(1)]
    """File with its weights: safetensors, a state_dict of torch.save, TorchScript, or an exported program (.pt2)."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")
    """Its name in paths and, without a `label`, in figures."""
    label: str = ""
    """Its name in figures."""
    privacy: Statement | Literal["none", "not known"] = "not known"
    """Its privacy, as its maker states it; `none` for a network trained without."""
    model: dict[str, Any] = {}
    """Settings of the network that differ from the dataset's; TorchScript and exported programs take `normalize`
    only."""
    temperature: Temperature = 1.0
    """Divide the logits by this, or by each of these in turn; {confidence_of: NAME}: by what makes it as confident as
    the run of that name."""


_TRAINING = [name for name in Training.model_fields if name not in ("delta", "precision")]


def _sweep(name: str) -> tuple[Any, Any]:
    field = Training.model_fields[name]
    one = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    many = Annotated[list[one], MinLen(1), Unique]
    return (one | many | None, Field(default=None, description=field.description))


RunEntry = create_model(
    "RunEntry",
    __base__=Settings,
    __doc__="A grid of runs: any setting of the dataset's training, or a list of its values.",
    algorithm=(
        Literal["sgd", "dpsgd"],
        Field(default="dpsgd", description="Whose settings of the dataset the runs start from."),
    ),
    **{name: _sweep(name) for name in _TRAINING},
    init=(
        str | list[str] | None,
        Field(default=None, description="Initialisation of the weights, as in the dataset's model."),
    ),
    model=(dict[str, Any], Field(default={}, description="Settings of the network that differ from the dataset's.")),
    temperature=(
        Temperature | None,
        Field(
            default=None,
            description="Divide the logits by this after training; {confidence_of: NAME}: by what makes it as "
            "confident as the run of that name (a run made of another's model, not trained again).",
        ),
    ),
    pair=(
        bool,
        Field(default=False, description="Lists are paired, first with first, instead of all their combinations."),
    ),
    label=(str, Field(default="", description="Name in figures; by default what the settings are.")),
)


def _kind(entry: Any) -> str:
    if isinstance(entry, str):
        return "name"
    given = isinstance(entry, WeightsEntry) or (isinstance(entry, dict) and "weights" in entry)
    return "weights" if given else "grid"


Entry = Annotated[
    Annotated[Literal["sgd"], Tag("name")] | Annotated[RunEntry, Tag("grid")] | Annotated[WeightsEntry, Tag("weights")],
    Discriminator(_kind),
]
"""An entry of `runs:`."""


class RunsDisplay(DatasetDisplay):
    """A display of runs of a dataset."""

    runs: Annotated[list[Entry], MinLen(1)]
    """The models shown: `sgd`, grids of runs, given weights. What is shown is what is trained."""


def expand(
    entries: Sequence[str | Settings],
    training: Mapping[str, Settings],
    model: Mapping[str, Any],
    delta: float,
    merge: Any = None,
) -> list[Run]:
    """The runs that entries stand for, in their order.

    Args:
        entries: validated by `Entry`.
        training: algorithm -> the dataset's defaults.
        model: the dataset's network, as plain settings.
        delta: of an `epsilon` that a run asks for.
        merge: function of model settings and changes that gives the checked settings of a run's network; None: the
            changes are put over the settings.

    Raises:
        PydanticCustomError: settings that do not go together.
    """
    merge = merge or (lambda settings, changes: {**settings, **changes})
    runs = [run for entry in entries for run in _expand(entry, training, dict(model), delta, merge)]
    labels = {run.name: run.label() for run in runs}
    seen: set[Run] = set()
    for run in (runs := [_as_confident(run, labels) for run in runs]):
        if run in seen:
            raise fault(f"{run.name} is listed twice")
        seen.add(run)
    return runs


def _as_confident(run: Run, labels: Mapping[str, str]) -> Run:
    """The run, with the other that its confidence is of as that is labelled beside it."""
    if not run.confidence_of:
        return run
    other = labels.get(run.confidence_of, run.confidence_of)
    told = f"({other})" if ", " in other else other
    return run.model_copy(update={"own": run.own | {CONFIDENCE_OF: told}})


def _renamed(base: str, temperature: float, confidence_of: str) -> str:
    """The name of a run made of another's model."""
    name = base if temperature == 1 else f"{base}_temperature={number(temperature)}"
    name += f"_temperature.confidence_of={_part(confidence_of)}" if confidence_of else ""
    if len(name) > LONGEST_SCALED:
        raise fault(f"{name[:40]}...: a name of {len(name)} characters is too long for paths; change fewer settings")
    return name


def _expand(entry: Any, training: Mapping[str, Settings], model: dict, delta: float, merge: Any) -> Iterator[Run]:
    if isinstance(entry, WeightsEntry):
        for asked in entry.temperature if isinstance(entry.temperature, list) else [entry.temperature]:
            base = f"weights={entry.name}"
            temperature, other = (1.0, asked.confidence_of) if isinstance(asked, Matched) else (asked, "")
            yield Run(
                name=_renamed(base, temperature, other),
                base=base,
                confidence_of=other,
                own={CONFIDENCE_OF: other} if other else {},
                algorithm="weights",
                weights=entry.weights,
                privacy=entry.privacy,
                model=merge(model, entry.model),
                temperature=float(temperature),
                title=entry.label,
            )
        return
    if entry == "sgd":
        entry = RunEntry(algorithm="sgd")
    asked = {name: getattr(entry, name) for name in (*_TRAINING, "init", "temperature")}
    asked = {name: value for name, value in asked.items() if value is not None}
    swept = {name: value for name, value in asked.items() if _is_sweep(name, value)}
    if entry.pair and len({len(values) for values in swept.values()}) > 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in swept.items())
        raise fault(f"pair: lists of different lengths ({told})")
    points = zip(*swept.values(), strict=True) if entry.pair and swept else itertools.product(*swept.values())
    for point in points:
        settings = asked | dict(zip(swept, point, strict=True))
        yield _run(entry, settings, set(swept), training[entry.algorithm], model, delta, merge)


def _is_sweep(name: str, value: Any) -> bool:
    if name == "augment":
        return bool(value) and isinstance(value[0], list)
    return isinstance(value, list)


def _run(
    entry: Any, asked: dict[str, Any], swept: set[str], defaults: Settings, model: dict, delta: float, merge: Any
) -> Run:
    own: dict[str, Any] = {}
    if "init" in asked and "init" in entry.model:
        raise fault("init and model.init say the same: leave one out")
    changes = {name: asked.pop(name) for name in ("init",) if name in asked} | entry.model
    temperature, other = asked.pop("temperature", 1.0), ""
    if isinstance(temperature, Matched):
        temperature, other = 1.0, temperature.confidence_of
    settings = {name: value for name, value in asked.items() if _default(defaults, name) != value}
    noisy = "sigma" in settings or "epsilon" in settings
    if entry.algorithm == "dpsgd":
        if "clip" not in settings:
            raise fault("a DP-SGD run needs clip (and sigma or epsilon)")
        if not noisy:
            raise fault("a DP-SGD run needs sigma or epsilon; clipping without noise is {algorithm: sgd, clip: C}")
    elif "clip" in settings and noisy:
        raise fault("noise on clipped gradients is DP-SGD: leave out `algorithm: sgd`")
    elif "epsilon" in settings:
        raise fault("epsilon needs clip: without it no noise is private")
    elif asked.get("noise") and not (noisy and asked["noise"] == "sigma"):
        # Else two runs of one name would differ, or the rule would be another than the one asked for.
        raise fault("noise: without clip the noise has standard deviation sigma, without sigma there is none")
    elif noisy:
        settings["noise"] = "sigma"
    for name in ("engine", "clip_function"):
        if name in settings and "clip" not in settings:
            raise fault(f"{name} is how gradients are clipped: it needs clip")
    if settings.get("clip") == 1:
        settings.pop("noise", None)  # the two rules are one: a run is trained once
    for name in ("sigma", "epsilon", "clip", "noise", *_TRAINING):
        value = settings.get(name)
        if isinstance(value, Stop):
            own |= {f"stop.{key}": v for key, v in value if v != Stop.model_fields[key].default}
        elif name in settings and not (name == "noise" and entry.algorithm == "sgd"):
            own[name] = value
    network = merge(model, changes)
    own |= _differences(network, model)
    base = "_".join([entry.algorithm, *(f"{key}={_part(value)}" for key, value in own.items())])
    if len(base) > LONGEST:
        raise fault(f"{base[:40]}...: a name of {len(base)} characters is too long for paths; change fewer settings")
    if temperature != 1:
        own["temperature"] = float(temperature)
    if other:
        own[CONFIDENCE_OF] = other
    title = entry.label
    if title and swept:  # else the runs of a grid would share it
        title = ", ".join(filter(None, [title, _setting({k: v for k, v in own.items() if k.split(".")[0] in swept})]))
    return Run(
        name=_renamed(base, temperature, other),
        base=base,
        confidence_of=other,
        algorithm=entry.algorithm,
        training=_training(defaults, settings | ({"delta": delta} if "epsilon" in settings else {})),
        model=network,
        own=own,
        temperature=float(temperature),
        title=title,
    )


def _default(defaults: Settings, name: str) -> Any:
    """What a run has that does not ask for it: a dataset's setting, or where datasets have none, a training's."""
    return getattr(defaults, name, Training.model_fields[name].default)


def _training(defaults: Settings, settings: Mapping[str, Any]) -> Training:
    inherited = {name: getattr(defaults, name) for name in type(defaults).model_fields}
    try:
        return Training(**{**inherited, **settings})
    except ValidationError as error:
        told = error.errors()[0]
        raise fault(": ".join(filter(None, [".".join(map(str, told["loc"])), told["msg"]]))) from None


def _differences(network: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """What differs in a network's settings: `init` by its name, the rest as ``model.KEY``."""
    told = {}
    for key, value in network.items():
        if model.get(key) != value:
            flat = {f".{k}": v for k, v in value.items()} if isinstance(value, dict) and value else {"": value}
            told |= {("init" if key == "init" else f"model.{key}") + end: v for end, v in flat.items()}
    return told
