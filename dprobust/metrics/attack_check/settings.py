"""Settings of the metric `attack_check`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from dprobust.settings import Ascending, Count, Loss, MetricSettings, Step, Unique

MINUTES = 10
FLAGS = True


class Metric(MetricSettings):
    """Checks of what PGD leaves - is it robustness, or are gradients masked?"""

    images: Count | None = 100
    """Measure on so many of the test images in use, the first of the study's draw (the same in every metric); null
    means all. The shares' thresholds are a few percent: fewer than 100 images do not resolve them."""
    eps: Annotated[list[Step], MinLen(1), Unique, Ascending] = [0.1]
    """Sizes of the ball (largest change of a pixel, pixels in [0, 1]), ascending; all checks are made at each."""
    attack: Literal["fgsm", "pgd"] = "pgd"
    """The attack to check, as the paper's: FGSM, or PGD of 40 steps from the image (alpha 0.01, or 2.5 eps / 40 if that
    is more). Another attack is checked by `dprobust.attacks.check`."""
    loss: Loss = "ce"
    """Loss whose gradient it follows; see fgsm."""
    square_queries: Annotated[int, Ge(1), Le(1_000_000)] = 500
    """Random changes that Square Attack tries."""
    planted: Count = 10
    """Images with a planted adversarial point, at most."""
    transfer_from: Annotated[list[str], Unique] | Literal["auto"] = "auto"
    """Names, as in paths, of the runs whose adversarial images are tried on every other run's model of the same seed
    (the check `transfer`); none: no such check. auto takes sgd where the study has it."""


def others(settings: Metric, run: str, known: Sequence[str]) -> list[str]:
    """The runs whose models this one needs, of those in the study."""
    names = [name for name in ("sgd",) if name in known] if settings.transfer_from == "auto" else settings.transfer_from
    return [name for name in names if name != run]
