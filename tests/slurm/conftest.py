"""Snakemake on a real Slurm of one node, started for these tests and stopped after them: make test-slurm."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import one_node
import pytest
import yaml
from helpers import ROOT

# Slurm is asked more often than on a cluster that others use.
SLURM = ("--workflow-profile", "profiles/slurm", "--latency-wait", "10")
SLURM += ("--slurm-init-seconds-before-status-checks", "2")


@dataclass
class Clone:
    """A clone of the repository, with data, and the Slurm that it works on."""

    folder: Path
    slurm: one_node.OneNode | None = None
    options: tuple[str, ...] = ()
    runs: int = 0

    def command(self, *arguments: str, config=()) -> list[str]:
        files = ["--configfile", "presets/smoke.yaml", *map(str, config)]
        return [sys.executable, "-m", "snakemake", *self.options, *arguments, *files]

    def start(self, *arguments: str, config=()) -> subprocess.Popen:
        """A run in the background; what the last one says is in `told()`."""
        self.runs += 1
        environment = os.environ | (self.slurm.environment if self.slurm else {})
        with self._log.open("w") as log:
            return subprocess.Popen(
                self.command(*arguments, config=config), cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def run(self, *arguments: str, config=(), check=True) -> str:
        code = self.start(*arguments, config=config).wait()
        assert not (check and code), self.told()[-4000:]
        return self.told()

    def told(self) -> str:
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.folder / f"run{self.runs}.log"

    def overlay(self, name: str, **config) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def slurm():
    if reason := one_node.missing():
        pytest.skip(f"no Slurm: {reason}")
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("no Slurm: its executor plugin is not installed; make cluster")
    folder = Path(tempfile.mkdtemp(prefix="slurm."))
    node = one_node.OneNode(folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder)


@pytest.fixture
def clone(tmp_path, mnist):
    """Makes clones of what is to be committed, with real MNIST and, if they were made before, the corrupted sets."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE
    ).stdout.decode()
    files = [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    for name in ("pessimal", "generate"):
        files += [Path("data/mnist_c") / f"{name}.{suffix}" for suffix in ("npz", "json")]
    files += [path.relative_to(ROOT) for path in (mnist / f"{name}.npz" for name in ("train", "test"))]
    files += [(mnist / "source.json").relative_to(ROOT)]

    def make(name: str, node: one_node.OneNode | None = None, options=SLURM) -> Clone:
        folder = tmp_path / name
        for file in files:
            if (ROOT / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, folder / file)
        return Clone(folder, node, options if node else ())

    return make
