"""Snakemake as a user calls it, in a folder of its own, on the repository's Snakefile."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "presets" / "smoke.yaml"


@dataclass
class Workspace:
    """A working directory for runs, with results/ of its own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments, config=(SMOKE,)):
        base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        files = ["--configfile", *map(str, config)] if config else []
        return [*base, "--directory", str(self.folder), *map(str, arguments), *files]

    def run(self, *arguments, config=(SMOKE,), check=True):
        return called(self.command(*arguments, config=config), self.environment, check)

    def planned(self, *targets, **options):
        """The jobs that a dry run of the targets would do: rule -> number."""
        table = self.run(*targets, "--dry-run", **options).output.partition("Job stats:")[2].split("\n\n")[0]
        counts = (line.split() for line in table.splitlines()[3:] if line.strip())
        return {rule: int(number) for rule, number in counts if rule != "total"}

    def start(self, *arguments, config=(SMOKE,)):
        """A run in the background that `kill` can end at once, with all that it started."""
        return subprocess.Popen(
            self.command(*arguments, config=config),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | self.environment,
            start_new_session=True,
        )

    def overlay(self, name="overlay.yaml", **config):
        path = self.folder / name
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path


def called(command, environment, check=True, cwd=None):
    """A call that has ended, `output` being all that it printed; whether it succeeds is asserted if `check` is True."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, check=False)
    done.output = done.stdout + done.stderr
    assert not check or done.returncode == 0, done.output[-4000:]
    return done


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
