"""The rule by which claims are judged (docs/verdicts.md). It was written down before the paper's runs."""

import math
from collections.abc import Iterable

from dprobust.claims import Stated
from dprobust.statistics import Estimate, Smallest

REPRODUCED = "reproduced"
DIRECTION = "direction only"
NOT = "not reproduced"
UNDECIDED = "undecided"
UNMEASURED = "not measured here"
LEVEL = 0.95
MOST = 1000
"""Seeds looked for at most, when asked how many would decide."""

Found = Estimate | Smallest


def verdict(found: Found, stated: Stated, level: float = LEVEL, population: int | None = None) -> str:
    """The verdict on one statement.

    Args:
        found: the quantity.
        stated: what is stated of it.
        level: of both intervals.
        population: test images that there are.
    """
    low, high = found.interval(level)
    if found.seeds == 1 or math.isnan(low) or math.isnan(high):
        return UNDECIDED
    value = None if stated.misprint else stated.value
    first, last = found.of_one_run(level, population, stated.theirs)
    fits = value is None or first <= value <= last
    if stated.direction is None:
        if value is None or not last - first <= 2 * stated.margin:
            return UNDECIDED
        return REPRODUCED if fits else NOT
    lower, upper = stated.than - stated.margin, stated.than + stated.margin
    negligible = stated.margin > 0 and lower <= low and high <= upper
    if stated.direction == "within":
        holds, fails = negligible, low > upper or high < lower
    else:
        above, below = low > stated.than, high < stated.than
        holds, fails = (above, below) if stated.direction == "above" else (below, above)
        if found.exact:
            fails = not holds
        holds, fails = holds and not negligible, fails or negligible
    if fails:
        return NOT
    if not holds:
        return UNDECIDED
    return REPRODUCED if fits else DIRECTION


def overall(verdicts: Iterable[str]) -> str:
    """The verdict on a claim of several statements, all of which it makes: that of its weakest."""
    found = set(verdicts)
    return next(name for name in (NOT, UNDECIDED, DIRECTION, REPRODUCED) if name in found)


def p_value(found: Found, stated: Stated) -> float:
    """Twice the one-sided p for the direction stated, small where the data speak for it; nan where nothing is left to
    chance or no direction is stated."""
    if found.exact or stated.direction is None:
        return math.nan
    if stated.direction == "within":
        return max(found.p_above(stated.than - stated.margin), found.p_below(stated.than + stated.margin))
    return found.p_above(stated.than) if stated.direction == "above" else found.p_below(stated.than)


def seeds_to_decide(found: Found, stated: Stated, level: float = LEVEL, population: int | None = None) -> int | None:
    """The smallest number of seeds with which the verdict would not be undecided, if all else stayed as it is; None if
    no number up to 1,000 would do, or with one seed nobody can tell."""
    if found.exact or found.seeds < 2:
        return None

    def decided(seeds: int) -> bool:
        return verdict(found.with_seeds(seeds), stated, level, population) != UNDECIDED

    if not decided(MOST):
        return None
    low, high = 2, MOST  # intervals shrink with seeds: bisect
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle + 1, high)
    return low
