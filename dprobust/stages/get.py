"""Get a dataset: verified files -> arrays."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dprobust import sources
from dprobust.sources import Source


def get(spec: Mapping[str, Any], folder: Path, mirrors: Iterable[str], known: Mapping[str, Source]) -> None:
    """Write train.npz, test.npz and source.json of the dataset `spec["source"]` into a folder.

    Args:
        spec: `dprobust.plan.Plan.data`.
        folder: where original files are kept, or were placed by hand, and where the arrays go.
        mirrors: mirrors to try before the source's own.
        known: datasets that extensions bring.
    """
    sources.prepare(spec["source"], folder, mirrors=mirrors, sha256=spec["sha256"], own=known)
