"""Contestants measured in turn, round after round, and the plain data that comes of it.

A machine is never idle for long. Each round measures every contestant once, and what is compared is the ratio of two
contestants within a round: a disturbance that lasts longer than a round hits both alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Samples = dict[str, list[float]]
"""Contestant -> what was measured of it, a number a round."""


class WrongContestant(Exception):
    """A contestant computes something else: its time means nothing."""


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Row:
    """One contestant: `value` in the table's unit, `ratio` to the table's reference, `count` measurements."""

    name: str
    value: Spread
    count: int
    ratio: Spread | None = None


@dataclass(frozen=True)
class Target:
    """A number that is to be at most, or at least, a bound."""

    what: str
    value: Spread
    bound: float
    at_most: bool = True
    unit: str = ""

    def verdict(self) -> str:
        """Whether it holds: "yes" if for the worse quartile too."""

        def meets(number: float) -> bool:
            return number <= self.bound if self.at_most else number >= self.bound

        if not meets(self.value.median):
            return "no"
        return "yes" if meets(self.value.high if self.at_most else self.value.low) else "barely"


@dataclass(frozen=True)
class Table:
    """Rows of one comparison; the ratios are to the row `reference`. `counted` says what a row's count is of."""

    title: str
    unit: str
    rows: Sequence[Row]
    reference: str | None = None
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()
    counted: str = field(default="rounds")


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """A contestant that is measured by its seconds."""

    def seconds() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return seconds


def interleave(contestants: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> Samples:
    """Measure all contestants in each round, every round in another order."""
    names = list(contestants)
    for name in names * warm_up:
        contestants[name]()
    samples: Samples = {name: [] for name in names}
    told = time.monotonic()
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            samples[name].append(contestants[name]())
        if time.monotonic() - told > 15:
            told = time.monotonic()
            progress(f"    round {i + 1} of {rounds}")
    return samples


def ratio(samples: Samples, name: str, reference: str) -> Spread:
    """Of the ratios within each round."""
    return Spread.of([a / b for a, b in zip(samples[name], samples[reference], strict=True)])


def rows(samples: Samples, scale: float = 1, reference: str | None = None) -> list[Row]:
    """The rows of a table from samples, times `scale`."""
    return [
        Row(
            name,
            Spread.of([scale * value for value in values]),
            len(values),
            ratio(samples, name, reference) if reference else None,
        )
        for name, values in samples.items()
    ]


def distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """l2 distance of all tensors together, relative to the norm of the expected ones."""
    if found.keys() != expected.keys():
        raise WrongContestant(f"found {sorted(found)}, expected {sorted(expected)}")
    squares = [(found[key].double() - expected[key].double()).square().sum() for key in expected]
    return (sum(squares) / sum(value.double().square().sum() for value in expected.values())).sqrt().item()


def check(name: str, errors: Sequence[float], tolerance: float) -> None:
    """WrongContestant unless the median error is within the tolerance.

    Not each: in float32 a near-tie in a pooling window or at a ReLU may fall either way, in the reference too.
    """
    if not (error := statistics.median(errors)) <= tolerance:
        raise WrongContestant(f"{name} is off by {error:.1e}, allowed are {tolerance:.0e}")


def progress(line: str) -> None:
    print(line, flush=True)
