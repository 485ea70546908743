"""Settings of the metric `pgd_iterations`."""

from typing import Annotated

from annotated_types import Ge, Le, MaxLen, MinLen

from dprobust.settings import EpsGrid, Losses, MetricSettings, Step, Unique

MINUTES = 120
UNPUBLISHED = ("images", "loss_value")


class Metric(MetricSettings):
    """Number of steps of projected gradient descent until an image is first misclassified."""

    eps: EpsGrid = [0.1, 0.2, 0.3]
    """Sizes of the ball (largest change of a pixel, pixels in [0, 1]), ascending."""
    alphas: Annotated[list[Step], MinLen(1), MaxLen(4), Unique] = [0.005, 0.01, 0.02, 0.05]
    """Sizes of a step (change of a pixel, pixels in [0, 1])."""
    steps: Annotated[int, Ge(1), Le(10_000)] = 40
    """Steps after which an image counts as never fooled."""
    losses: Losses = ["ce", "ce_stable"]
    """Losses whose gradient is followed; see fgsm."""
    keep_images: Annotated[int, Ge(0)] = 0
    """Keep the images as they are when first misclassified, of the first so many of the study's draw; 0 keeps none (pgd
    keeps those for transfer)."""
