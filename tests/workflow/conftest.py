import shutil

import pytest
from helpers import ROOT, Workspace


@pytest.fixture
def empty(tmp_path):
    """No data, no results."""
    return Workspace(tmp_path)


@pytest.fixture
def ready(tmp_path, mnist):
    """Real MNIST at hand, no results."""
    _copy(tmp_path, mnist)
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, mnist):
    """A finished smoke run, and the run's output. Tests leave it as they find it."""
    folder = tmp_path_factory.mktemp("a smoke run")  # with spaces
    _copy(folder, mnist)
    _copy_mnist_c(folder)
    workspace = Workspace(folder)
    workspace.output = workspace.run().output
    return workspace


def _copy_mnist_c(folder):
    """The corrupted sets, if they were made before: they take a minute or two."""
    made = ROOT / "data" / "mnist_c"
    if all((made / name).exists() for name in ("pessimal.npz", "generate.npz", "generate.json")):
        (folder / "data" / "mnist_c").mkdir()
        for name in ("pessimal.npz", "generate.npz", "generate.json"):
            shutil.copy(made / name, folder / "data" / "mnist_c")


def _copy(folder, mnist):
    (folder / "data" / "mnist").mkdir(parents=True)
    for name in ("train.npz", "test.npz", "source.json"):
        shutil.copy(mnist / name, folder / "data" / "mnist")  # newer than every script
