"""From records to verdicts: each claim is measured twice, as the paper does and by the strongest measurement here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dprobust.claims import Claim, Measurement, Part
from dprobust.errors import UserError
from dprobust.quantity import Model
from dprobust.registry import load
from dprobust.showing import Given
from dprobust.statistics import Estimate, Sample, estimate, holm, smallest
from dprobust.verdicts import LEVEL, UNMEASURED, Found, overall, p_value, seeds_to_decide, verdict

OTHERS = (0.90, 0.99)
"""Levels at which verdicts are given besides."""


@dataclass(frozen=True)
class Judged:
    """A statement, measured in one way."""

    found: Found
    unit: str
    p: float
    verdict: str
    at: Mapping[float, str]
    """Level -> verdict."""
    without: Mapping[int, str]
    """Seed -> verdict when it is left out."""
    decides: int | None
    """Seeds that would decide."""
    one_run: tuple[float, float]
    """Prediction interval of one training."""

    def plain(self) -> dict[str, Any]:
        """For JSON; nan and infinity are null."""
        low, high = self.found.interval(LEVEL)
        numbers = {"value": self.found.value, "low": low, "high": high, "p": self.p}
        numbers |= dict(zip(("one_run_low", "one_run_high"), self.one_run, strict=True))
        told = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return told | {
            "each": [value if math.isfinite(value) else None for value in self.found.each],
            "unit": self.unit,
            "seeds": self.found.seeds,
            "images": self.found.images,
            "exact": self.found.exact,
            "verdict": self.verdict,
            "at": {f"{level:g}": name for level, name in self.at.items()},
            "without_seed": {str(seed): name for seed, name in self.without.items()},
            "seeds_that_would_decide": self.decides,
        }


@dataclass(frozen=True)
class Ruling:
    """A claim as it came out."""

    claim: Claim
    paper: tuple[Judged, ...] = ()
    """Of each part."""
    strongest: tuple[Judged | None, ...] = ()
    """Of each part; None where nothing stronger is measured."""

    @property
    def twice(self) -> bool:
        """Whether anything stronger is measured."""
        return any(self.strongest)

    def parts(self, strongest: bool = False) -> tuple[Judged, ...]:
        """The parts, by the strongest measurement where there is one."""
        pairs = zip(self.paper, self.strongest, strict=True)
        return tuple(other or own for own, other in pairs) if strongest else self.paper

    def verdict(self, strongest: bool = False) -> str:
        return overall(part.verdict for part in self.parts(strongest)) if self.paper else UNMEASURED

    def at(self, level: float, strongest: bool = False) -> str:
        return overall(part.at[level] for part in self.parts(strongest)) if self.paper else UNMEASURED

    def without(self, strongest: bool = False) -> dict[int, str]:
        """Seed -> verdict when it is left out."""
        seeds = sorted({seed for part in self.parts(strongest) for seed in part.without})
        return {seed: overall(p.without.get(seed, p.verdict) for p in self.parts(strongest)) for seed in seeds}

    def p(self, strongest: bool = False) -> float:
        """Of all its statements together: the largest (intersection-union test)."""
        tested = [part.p for part in self.parts(strongest) if not math.isnan(part.p)]
        return max(tested, default=math.nan)


def judged(given: Given, claims: Sequence[Claim]) -> list[Ruling]:
    """Judge claims by the records that they need.

    Raises:
        UserError: records that do not have what a claim needs.
    """
    models = Models(given)
    rulings = []
    for claim in claims:
        if claim.missing:
            rulings.append(Ruling(claim))
            continue
        try:
            paper = tuple(_judged(part, part.paper, models) for part in claim.parts)
            others = (part.strongest and _judged(part, part.strongest, models) for part in claim.parts)
            rulings.append(Ruling(claim, paper, tuple(others)))
        except ValueError as error:
            raise UserError(f"claims: {claim.id}: {error}") from None
    return rulings


def adjusted(rulings: Sequence[Ruling], strongest: bool = False) -> list[float]:
    """p values adjusted by Holm for the number of claims."""
    return holm([ruling.p(strongest) for ruling in rulings])


class Models:
    """The records of runs, by dataset and name."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.runs = dict(
            zip(zip(given.datasets, (run.name for run in given.runs), strict=True), given.runs, strict=True)
        )
        self.seeds: dict[tuple[str, str, str], list[int]] = {}
        for metric, dataset, run, seed in given.arrays:
            self.seeds.setdefault((metric, dataset, run), []).append(seed)

    def of(self, measurement: Measurement, metrics: Sequence[str]) -> list[Model]:
        """The models of a measurement, all measured on the same images."""
        return [self._model(measurement.dataset, run, metrics) for run in measurement.runs]

    def _model(self, dataset: str, run: str, metrics: Sequence[str]) -> Model:
        arrays = {
            m: [self.given.arrays[m, dataset, run, seed] for seed in self.seeds[m, dataset, run]] for m in metrics
        }
        privacy = self.given.privacy
        if not privacy.empty:
            privacy = privacy[(privacy["dataset"] == dataset) & (privacy["run"] == run)]
        return Model(self.runs[dataset, run], arrays, privacy)

    def drawn(self, measurement: Measurement, metrics: Sequence[str]) -> list[int]:
        """The seeds of the runs that have most."""
        keys = [(metric, measurement.dataset, run) for metric in metrics for run in measurement.runs]
        return max((self.seeds[key] for key in keys), key=len, default=[])


def _judged(part: Part, measurement: Measurement, models: Models) -> Judged:
    module = load(measurement.package)
    settings = module.Quantity(**measurement.settings)
    metrics = type(settings).metrics
    made = module.sample(settings, models.of(measurement, metrics))
    found = _found(made)
    seeds = models.drawn(measurement, metrics) if found.seeds > 1 else []
    left = {seed: verdict(_found(_without(made, i)), part, LEVEL, part.population) for i, seed in enumerate(seeds)}
    return Judged(
        found=found,
        unit=type(settings).unit,
        p=p_value(found, part),
        verdict=verdict(found, part, LEVEL, part.population),
        at={level: verdict(found, part, level, part.population) for level in OTHERS},
        without=left,
        decides=seeds_to_decide(found, part, LEVEL, part.population),
        one_run=found.of_one_run(LEVEL, part.population, part.theirs),
    )


def _found(made: Sample | list[Sample] | float) -> Found:
    if isinstance(made, Sample):
        return estimate(made)
    return smallest(made) if isinstance(made, list) else Estimate(float(made))


def _without(made: Sample | list[Sample], seed: int) -> Sample | list[Sample]:
    return [sample.without(seed) for sample in made] if isinstance(made, list) else made.without(seed)
