"""Made-up runs for tests of displays."""

from pydantic import TypeAdapter

from dprobust.recipe import Dpsgd, Sgd
from dprobust.runs import Entry, Run, expand


def runs(*entries: object) -> tuple[Run, ...]:
    """The runs of entries as a config has them."""
    checked = TypeAdapter(list[Entry]).validate_python(list(entries))
    return tuple(expand(checked, {"sgd": Sgd(), "dpsgd": Dpsgd()}, {"name": "lenet"}, delta=1e-6))
