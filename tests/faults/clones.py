"""Clones of the repository with a small study in them, and what befalls a run there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from helpers import ROOT, called

from dprobust.files import sha256

STUDY = Path("tests/faults/study.yaml")
RESULTS = Path("results/faults")
SGD = RESULTS / "models/digits/sgd/seed=0"
RECORDS = RESULTS / "records/digits/sgd/seed=0"
HOOKS = Path(__file__).parent / "hooks"
GIT = ("git", "-c", "user.name=faults", "-c", "user.email=faults@localhost")


@dataclass
class Clone:
    """A clone in which runs are called as a user calls them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def path(self, *parts):
        return self.folder.joinpath(*parts)

    def command(self, *arguments, config=()):
        overlays = map(str, (STUDY, *config))
        base = [sys.executable, "-m", "snakemake", "--cores", "2"]
        return [*base, *map(str, arguments), "--configfile", *overlays]

    def run(self, *arguments, config=(), check=True):
        """A run; whether it succeeds is asserted unless `check` is False."""
        return called(self.command(*arguments, config=config), self.environment, check, cwd=self.folder)

    def status(self, *arguments):
        command = [sys.executable, "-m", "workflow.status", *arguments, str(STUDY)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def start(self, *arguments, config=(), **environment):
        """A run in the background, the leader of a group of all that it starts."""
        return subprocess.Popen(
            self.command(*arguments, config=config),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | self.environment | environment,
            start_new_session=True,
        )

    def overlay(self, name="overlay.yaml", **config):
        self.path(name).write_text(yaml.safe_dump(config), encoding="utf-8")
        return name

    def contents(self):
        """File -> SHA-256 of everything that runs make, but for what tells of their time and speed."""
        files = [path for top in ("results", "data") for path in self.path(top).rglob("*") if path.is_file()]
        names = {path.relative_to(self.folder): path for path in files}
        told = {"logs", "benchmarks"}
        return {
            str(name): sha256(path)
            for name, path in sorted(names.items())
            if not told & set(name.parts)
            and path.suffix not in (".log", ".lock", ".damaged")
            and path.name != ".lock"
            and not (name.parts[0] == "data" and path.suffix == ".tmp")  # stays for an hour
        }

    def count(self):
        """How many files there are; a job may be at work."""
        return sum(1 for top in ("results", "data") for path in self.path(top).rglob("*") if path.suffix != ".tmp")

    def lines(self, *parts):
        """Lines of a job's log, without their time."""
        text = self.path(RESULTS, "logs", *parts).read_text(encoding="utf-8")
        return [line.split(" ", 2)[-1] for line in text.splitlines()]


def errors(output):
    """What an output says is wrong; jobs' logs are printed in it, each line with its time."""
    return [line[line.index("error: ") :] for line in output.splitlines() if "error: " in line]


def copied(clone, folder):
    """Another clone, results and all, with the times of its files."""
    shutil.copytree(clone.folder, folder, symlinks=True)
    return Clone(folder)


def made(folder):
    """A clone of what lies in the repository, changes that are not committed among it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    ).stdout.decode()
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    if not names:  # not under version control
        names = [
            str(path.relative_to(ROOT))
            for path in ROOT.rglob("*")
            if path.is_file()
            and not {".venv", "results", ".snakemake", "__pycache__"} & set(path.parts)
            and path.relative_to(ROOT).parts[0] != "data"
        ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    with np.load(folder / "examples" / "my-lab" / "digits.npz") as digits:
        mirrored = {name: part[:200, ..., ::-1] if part.ndim > 1 else part[:200] for name, part in digits.items()}
    np.savez_compressed(folder / "public.npz", **mirrored)
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "The clone")):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return Clone(folder)


def ends(process, seconds=60):
    """Wait until a run and all that it started are gone."""
    process.wait(timeout=seconds)
    deadline = time.monotonic() + seconds
    while members(process.pid):
        assert time.monotonic() < deadline, f"still at work: {members(process.pid)}"
        time.sleep(0.1)


def members(session):
    """Command lines of the processes of a session, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state != "Z":
                found.append(stat.with_name("cmdline").read_text().replace("\0", " ")[-200:])
        except (OSError, ValueError):
            continue
    return found


def kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition, process, seconds=180):
    """Wait for a condition; False if the run ended before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.02)
    return True
