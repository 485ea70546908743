"""Settings of the metric `pgd`."""

from typing import Annotated

from annotated_types import Ge, Le, MinLen
from pydantic import model_validator

from dprobust.settings import EpsGrid, Losses, MetricSettings, Step, Unique, fault

MINUTES = 60
UNPUBLISHED = ("images", "loss_value")


class Metric(MetricSettings):
    """Accuracy under projected gradient descent, the attack in steps."""

    eps: EpsGrid = [0.1, 0.2, 0.3]
    """Sizes of the ball (largest change of a pixel, pixels in [0, 1]), ascending."""
    alpha: Step = 0.01
    """Size of a step (change of a pixel, pixels in [0, 1])."""
    steps: Annotated[list[Annotated[int, Ge(1), Le(10_000)]], MinLen(1), Unique] = [30, 40]
    """Numbers of steps after which accuracy is recorded, all from one run to the largest."""
    losses: Losses = ["ce", "margin"]
    """Losses whose gradient is followed; see fgsm."""
    random_start: bool = False
    """Start from a random point of the ball around the image instead of the image."""
    restarts: Annotated[int, Ge(1), Le(1000)] = 1
    """Number of random starts; an image counts as right where every one of them leaves it right."""
    keep_images: Annotated[int, Ge(0)] = 1000
    """Keep the adversarial images of the first so many of the study's draw, for transfer to other networks; 0 keeps
    none."""

    @model_validator(mode="after")
    def _restarts_are_random(self) -> "Metric":
        if self.restarts > 1 and not self.random_start:
            raise fault("restarts above 1 need random_start: true, else all of them are the same")
        return self
