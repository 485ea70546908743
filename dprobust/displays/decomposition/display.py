"""Settings of the table that takes the gap between SGD and DP-SGD apart."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import EpsGrid, fault

ROLES = {
    (False, False): "plain",
    (True, False): "clipping",
    (False, True): "noise",
    (True, True): "both",
}
"""(clipped, with noise) -> what a run is for."""


class Display(RunsDisplay):
    """A table of what clipping and noise, alone and together, take of the accuracy under FGSM, with intervals."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("fgsm",)
    images: ClassVar[bool] = True
    explains: ClassVar[int] = 1

    eps: EpsGrid = [0.0, 0.1]
    """Sizes of the perturbation; the metric fgsm must measure them."""


def roles(runs: Sequence[Run]) -> dict[str, Run]:
    """Role -> the first run that has it: plain, clipping, noise, both; the others are rows of their own."""
    found: dict[str, Run] = {}
    for run in runs:
        if run.training and not run.training.stop and not run.scaled:
            noisy = run.training.epsilon is not None or bool(run.training.sigma)
            found.setdefault(ROLES[run.clip is not None, noisy], run)
    return found


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where a role is not filled, the four are not of one group, or an eps is not measured."""
    four = roles(runs)
    if missing := [role for role in ROLES.values() if role not in four]:
        raise fault(
            f"runs: no run for {', '.join(missing)}; plain SGD, clipping alone, noise alone and both are needed"
        )
    groups = {run.training.coupled for run in four.values()}
    if len(groups) > 1 or groups == {None}:
        raise fault(f"runs: {', '.join(r.name for r in four.values())} are not coupled; give all one name in `coupled`")
    fgsm = measured["fgsm"]
    if missing := [eps for eps in settings.eps if eps not in fgsm.eps]:
        raise fault(f"eps: {missing[0]:g} is not among datasets.{settings.dataset}.metrics.fgsm.eps")
