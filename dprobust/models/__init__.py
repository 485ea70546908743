"""The networks: `dprobust.models.build` and what goes with it.

A folder is an architecture: settings.py (`Model`, typed settings), build.py (`layers`). The typed settings are read
where torch must not be imported, so this package imports it when a name that needs it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dprobust.models.networks import (
        INITIALISATIONS,
        Normalize,
        Temperature,
        build,
        compute_features,
        load,
        load_features,
        save,
        split,
        unit,
        with_temperature,
    )

__all__ = [
    "INITIALISATIONS",
    "Normalize",
    "Temperature",
    "build",
    "compute_features",
    "load",
    "load_features",
    "save",
    "split",
    "unit",
    "with_temperature",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dprobust.models.networks"), name)
