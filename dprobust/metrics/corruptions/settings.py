"""Settings of the metric `corruptions`."""

from typing import Annotated, Literal

from annotated_types import MinLen

from dprobust.settings import Facts, MetricSettings, fault

MINUTES = 30
MADE_HERE = "the sets made here are MNIST's; name an .npz with others in `sets`, or set corruptions to null"


class Metric(MetricSettings):
    """Accuracy on the 31 corrupted test sets of MNIST-C, or on others."""

    source: Literal["auto", "zenodo", "generate"] = "auto"
    """Where MNIST-C comes from - zenodo takes the official archives (500 MB), generate makes the sets by our generator,
    auto takes the archives where they can be had and generates the sets elsewhere."""
    sets: Annotated[str, MinLen(1)] | None = None
    """For other test sets than MNIST-C - an .npz file with a uint8 array (N, H, W), (N, C, H, W) or (N, H, W, C) a
    corruption, all test images in their order, each under its name. A .json of the same name beside it may tell of each
    name where the set comes from."""


def needs(settings: Metric, dataset: str) -> dict[str, str]:
    """The corrupted sets."""
    if settings.sets is None and dataset != "mnist":
        raise fault(f"dataset {dataset}: {MADE_HERE}")
    return {"sets": settings.sets or f"data/mnist_c/{settings.source}.npz"}


def check(settings: Metric, facts: Facts) -> None:
    """The sets made here are of 28 x 28 grey images."""
    if settings.sets is None and facts.shape and facts.shape != (1, 28, 28):
        raise fault(f"images of shape {facts.shape}: {MADE_HERE}")
