"""Whether the runs of a dataset go together: coupled ones, and those made by another's accuracy or confidence."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from dprobust.recipe import Training
from dprobust.runs import Run, as_text
from dprobust.settings import fault

SHARED = ("sampling", "batch_size", "batch_cap", "augment", "mislabelled", "stop")
"""Settings that decide which examples make a batch, so that coupled trainings must agree in them."""


def check_coupled(runs: Sequence[Run]) -> None:
    """Whether the runs of each coupling group can share their batches.

    Raises:
        PydanticCustomError: two runs of a group draw, or hold out, their examples in different ways.
    """
    first: dict[str, Run] = {}
    for run in runs:
        if run.training and run.training.coupled:
            other = first.setdefault(run.training.coupled, run)
            for name in SHARED:
                mine, theirs = (_drawn(r.training, name) for r in (run, other))
                if mine != theirs:
                    raise fault(
                        f"coupled: {run.name} has {name} {as_text(mine)}, but {other.name} of the same group "
                        f"{as_text(theirs)}: their batches cannot be the same; set {name} alike or leave coupled out"
                    )


def check_stops(runs: Mapping[str, Run]) -> None:
    """Whether the runs whose accuracy others are to reach are among the trained ones of a dataset, by their names.

    Raises:
        PydanticCustomError: one is not, or stops at the accuracy of a third.
    """
    for run in runs.values():
        if other := run.training.stop and run.training.stop.accuracy_of:
            key = f"stop.accuracy_of: {other}"
            if other not in runs:
                close = difflib.get_close_matches(other, runs, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise fault(f"{key} is not among the runs that are trained{hint}; show it, too")
            if runs[other].training.stop and runs[other].training.stop.accuracy_of:
                raise fault(f"{key} stops at the accuracy of another itself; name that one")


def check_confidences(runs: Mapping[str, Run]) -> None:
    """Whether the runs whose confidence others take are among those of a dataset, trained or shown, by their names.

    Raises:
        PydanticCustomError: one is not, or has a temperature.
    """
    for run in runs.values():
        if run.confidence_of:
            named(f"temperature.confidence_of: {run.confidence_of}", run.confidence_of, runs)


def named(key: str, name: str, runs: Mapping[str, Run]) -> None:
    """Whether a run by a name is one whose model stands for itself.

    Raises:
        PydanticCustomError: there is no such run, or it has a temperature.
    """
    if name not in runs:
        close = difflib.get_close_matches(name, runs, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise fault(f"{key} is not among the runs of the study{hint}; show it, too")
    if runs[name].scaled:
        raise fault(f"{key} has a temperature itself; name {runs[name].base}")


def _drawn(training: Training, name: str) -> Any:
    if name == "stop":  # the examples held out, not where it stops
        return training.stop.holdout if training.stop else None
    return getattr(training, name)
