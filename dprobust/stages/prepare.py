"""Make what a metric needs besides models and images, once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dprobust.registry import load


def prepare(spec: Mapping[str, Any], inputs: Mapping[str, Path], output: Path, mirrors: Iterable[str]) -> None:
    """Write an item of a material as `output` (.npz) and what is known of it beside it (.json).

    Args:
        spec: `dprobust.plan.Plan.material`.
        inputs: what it is made from, by the names that the material gives them.
        output: the file.
        mirrors: mirrors to try before the official ones.
    """
    load(f"{spec['package']}.make").make(spec["item"], inputs, output, mirrors)
