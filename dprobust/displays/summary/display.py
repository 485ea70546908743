"""A table that answers: is my private model fragile?"""

from typing import Any, ClassVar

from dprobust.runs import Run, RunsDisplay
from dprobust.settings import EpsGrid, fault


class Display(RunsDisplay):
    """A table of privacy, accuracy with and without attack, distance to the boundary and confidence: a row a model,
    each also as the difference to the first."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("clean", "fgsm", "pgd", "distances")
    images: ClassVar[bool] = True
    privacy: ClassVar[bool] = True
    flags: ClassVar[bool] = True

    eps: EpsGrid = [0.1]
    """Radii of the attacks shown; metrics fgsm and pgd must measure them."""


def check(settings: Display, runs: list[Run], measured: dict[str, Any]) -> None:
    """Whether the radii are measured."""
    for metric in ("fgsm", "pgd"):
        for eps in settings.eps:
            if eps not in (grid := measured[metric].eps):
                raise fault(
                    f"eps: {eps:g} is not among datasets.{settings.dataset}.metrics.{metric}.eps "
                    f"({', '.join(f'{value:g}' for value in grid)})"
                )
