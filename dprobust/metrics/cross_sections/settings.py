"""Settings of the metric `cross_sections`."""

from math import prod
from typing import Annotated

from annotated_types import Ge, Le

from dprobust.settings import Count, Facts, MetricSettings, Positive, fault

MINUTES = 30


class Metric(MetricSettings):
    """Decision regions in the plane through an image that the normal of its nearest decision boundary (l2 DeepFool) and
    a random direction orthogonal to it span."""

    images: Count | None = 5
    """Show the first so many of the study's draw of test images; null means all of them."""
    half_width: Positive = 10.0
    """The square reaches so far from the image along both directions (l2 distance, pixels in [0, 1])."""
    resolution: Annotated[int, Ge(3), Le(2001)] = 201
    """Points along a side of the square; an odd number has the image itself among them."""


def check(settings: Metric, facts: Facts) -> None:
    if facts.shape and prod(facts.shape) < 2:
        raise fault("cross_sections: images of one pixel have no plane through them; set it to null")
