"""Settings of the contact sheet of MNIST-C."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from dprobust.runs import Run
from dprobust.settings import DatasetDisplay, fault


class Display(DatasetDisplay):
    """One digit under each of the 31 corruptions of MNIST-C, beside the clean one."""

    kind: ClassVar[str] = "figure"
    metrics: ClassVar[tuple[str, ...]] = ()

    source: Literal["auto", "zenodo", "generate"] = "auto"
    """Where the corrupted sets come from - the official archives, our generator, or (auto) the archives where they can
    be had, else the generator."""


def check(settings: Display, runs: Sequence[Run], measured: Mapping[str, Any]) -> None:
    """Raise a `fault` where the dataset has no such sets."""
    if settings.dataset != "mnist":
        raise fault(f"dataset: {settings.dataset} has no contact sheet: the corrupted sets are those of mnist")


def needs(settings: Display, dataset: str) -> dict[str, str]:
    """The clean test images and the corrupted sets; the origin of each set is in the .json beside them."""
    return {"test": "data/mnist/test.npz", "sets": f"data/mnist_c/{settings.source}.npz"}
