import os
from pathlib import Path

# One thread a process, read when torch is loaded: small networks gain nothing from more, and workflow tests run jobs
# side by side.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from helpers import ROOT

from dprobust import arrays, sources
from dprobust.errors import UserError


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder with real MNIST, downloaded on first use."""
    folder = ROOT / "data" / "mnist"
    try:
        for split in ("train", "test"):
            arrays.load(folder / f"{split}.npz")
    except UserError:
        try:
            sources.prepare("mnist", folder)
        except UserError as error:
            pytest.skip(f"real MNIST cannot be had: {error}")
    return folder
