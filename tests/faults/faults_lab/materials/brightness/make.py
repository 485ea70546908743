"""Amounts of light."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dprobust.files import replaced, write_json


def make(item: str, inputs: Mapping[str, Path], output: Path, mirrors: Iterable[str] = ()) -> None:
    """Write `amounts`, float64 (5,), and beside it what they are."""
    with replaced(output) as temporary, temporary.open("wb") as file:
        np.savez(file, amounts=np.linspace(0, 0.5, 5))
    write_json(output.with_suffix(".json"), {"amounts": f"{item}: evenly spaced"})
