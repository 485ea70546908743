import shutil

import pytest
from clones import copied, made


@pytest.fixture(scope="session")
def fresh_clone(tmp_path_factory):
    """Nothing is run in it yet."""
    return made(tmp_path_factory.mktemp("clone") / "fresh")


@pytest.fixture(scope="session")
def whole(fresh_clone, tmp_path_factory):
    """The study, run without disturbance. Tests leave it as they find it."""
    clone = copied(fresh_clone, tmp_path_factory.mktemp("clone") / "whole")
    clone.run()
    clone.made = clone.contents()
    return clone


@pytest.fixture
def fresh(fresh_clone, tmp_path):
    yield copied(fresh_clone, tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)


@pytest.fixture
def done(whole, tmp_path):
    """A copy of the whole study, to be disturbed."""
    yield copied(whole, tmp_path / "done")
    shutil.rmtree(tmp_path / "done", ignore_errors=True)
