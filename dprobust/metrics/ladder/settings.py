"""Settings of the metric `ladder`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import BeforeValidator

from dprobust.settings import Ascending, Count, Fraction, MetricSettings, Positive, Settings, Step, Unique, fault

MINUTES = 120

Steps = Annotated[int, Ge(1), Le(10_000)]
Restarts = Annotated[int, Ge(1), Le(1000)]
RungName = Literal["fgsm", "pgd", "pgd_margin", "pgd_targeted", "apgd_ce", "apgd_ce_stable", "apgd_targeted", "square"]
"""Keys of `dprobust.attacks.RUNGS`."""


class Budget(Settings):
    """What the attacks may spend on an image."""

    alpha: Step | None = None
    """Size of a step of rung pgd (change of a pixel, pixels in [0, 1]; in l2 length of the change of the image); null
    means 0.01 in linf, the paper's, and 2.5 eps / steps in l2. The other rungs of PGD take the latter in both."""
    pgd_steps: Steps = 40
    """Steps of each run of PGD."""
    pgd_restarts: Restarts = 1
    """Runs of pgd_margin, and of pgd_targeted towards each class; the first starts at the image, the others at random
    points."""
    classes: Count = 9
    """Other classes that the targeted rungs aim at, at most, the likeliest first."""
    apgd_steps: Steps = 100
    """Steps of each run of Auto-PGD; AutoAttack takes 100."""
    apgd_restarts: Restarts = 1
    """Runs of Auto-PGD along each loss and towards each class, from random points."""
    square_queries: Annotated[int, Ge(1), Le(1_000_000)] = 5000
    """Random changes that Square Attack tries; AutoAttack takes 5000."""
    near: Fraction = 0.0
    """Images that no attack breaks, but that one brings to a margin (the right logit less the largest wrong one) of at
    most this share of the one without attack, meet all attacks once more, with the budget full; 0 - none do."""


BudgetName = Literal["full", "fast"]
BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {"full": Budget(), "fast": Budget(classes=2, apgd_steps=15, square_queries=200, near=0.1)}
)
"""Those of `dprobust.attacks.BUDGETS`."""


def _named(value: Any) -> Any:
    """The budget of that name. Records, captions and what defines a job have its numbers alone."""
    if not isinstance(value, str):
        return value
    if value not in BUDGETS:
        raise fault(f"there is no budget {value!r}: take {' or '.join(BUDGETS)}, or a mapping of what to spend")
    return BUDGETS[value]


class Metric(MetricSettings):
    """Accuracy under a ladder of attacks, from FGSM to those of AutoAttack, each on the images that the ones before
    have left right."""

    images: Count | None = 1000
    """Measure on so many of the test images in use, the first of the study's draw (the same in every metric); null
    means all. An image that no attack breaks costs the whole budget."""
    eps: Annotated[list[Positive], MinLen(1), Unique, Ascending] = [0.1, 0.2, 0.3]
    """Sizes of the ball (linf: largest change of a pixel, pixels in [0, 1]; l2: length of the change), ascending."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the ball."""
    rungs: Annotated[list[RungName], MinLen(1), Unique] = [
        "fgsm",
        "pgd",
        "pgd_margin",
        "pgd_targeted",
        "apgd_ce",
        "apgd_ce_stable",
        "apgd_targeted",
        "square",
    ]
    """Attacks in the order to try them. fgsm and pgd follow float32 cross-entropy, as in the paper; pgd_margin the
    largest wrong logit minus the right one, pgd_targeted that of each of the likeliest classes; apgd_ce,
    apgd_ce_stable and apgd_targeted are Auto-PGD along cross-entropy, the same without its round-off, and towards each
    of the likeliest classes (DLR loss; of a model with fewer than four classes logit differences); square is Square
    Attack, which sees no gradient."""
    budget: Annotated[Budget, BeforeValidator(_named, json_schema_input_type=BudgetName | Budget)] = Budget()
    """What they may spend on an image: numbers, what is not told as in full; or a name. full: as AutoAttack in
    Auto-PGD and Square Attack; fast: some of the classes, steps and queries, and all of them for images that those
    bring near a break; for thousands of images."""
    alone_images: Annotated[int, Ge(0)] = 100
    """Try each attack by itself as well, on the first so many of the draw, to tell what it finds alone; 0 leaves
    that out."""
