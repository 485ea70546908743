from pathlib import Path

import pytest
from helpers import ROOT

from dprobust import datasets
from dprobust.errors import UserError


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder with real MNIST, downloaded on first use."""
    folder = ROOT / "data" / "mnist"
    if not all((folder / f"{split}.npz").exists() for split in ("train", "test")):
        try:
            datasets.prepare("mnist", folder)
        except UserError as error:
            pytest.skip(f"real MNIST cannot be had: {error}")
    return folder
