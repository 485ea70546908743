"""Settings of the metric `certificates`."""

from typing import Annotated

from annotated_types import Ge, Le, MinLen

from dprobust.settings import Ascending, Count, MetricSettings, Positive, Unique

MINUTES = 120


class Metric(MetricSettings):
    """Accuracy at small eps from both sides: images that are proven to be right everywhere in their ball, and images
    that PGD leaves right. For networks of affine layers, ReLU and pooling; others are refused."""

    images: Count | None = 200
    """Measure on so many of the test images in use, the first of the study's draw (the same in every metric); null
    means all. An image takes a second or so for each eps that is tried; of E eps that is about log2 E."""
    eps: Annotated[list[Annotated[Positive, Le(1)]], MinLen(1), Unique, Ascending] = [0.005, 0.01, 0.02, 0.03]
    """Sizes of the ball (largest change of a pixel, pixels in [0, 1]), ascending."""
    pgd_steps: Annotated[int, Ge(1), Le(10_000)] = 40
    """Steps of 2.5 eps / steps of the attack, along the largest wrong logit minus the right one."""
