"""Whether some corruptions have the largest gaps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from dprobust.quantity import Model, QuantitySettings, at, compared
from dprobust.settings import Unique
from dprobust.statistics import Sample


class Quantity(QuantitySettings):
    """The smallest gap on the corruptions named less the largest on any other, in percent."""

    metrics: ClassVar[tuple[str, ...]] = ("corruptions",)
    unit: ClassVar[str] = "points"

    corruptions: Annotated[list[str], MinLen(1), Unique]
    """Those whose gaps are said to be the largest."""


def sample(settings: Quantity, models: Sequence[Model]) -> list[Sample]:
    """For each corruption named and each other: right under the first less right under the second, times 100."""
    names = list(models[0].arrays["corruptions"][0]["corruption"])
    others = [name for name in names if name not in (*settings.corruptions, "identity")]

    def values(first: str, second: str) -> Callable[[Mapping[str, Any]], Any]:
        def of(arrays: Mapping[str, Any]) -> Any:
            one, other = (arrays["predicted"][at(arrays["corruption"], name)] for name in (first, second))
            return 100.0 * (one == arrays["label"]) - 100.0 * (other == arrays["label"])

        return of

    pairs = [(first, second) for first in settings.corruptions for second in others]
    return [compared(settings, models, [m.each("corruptions", values(*pair)) for m in models]) for pair in pairs]
