"""Snakemake, called as a user calls it, and told what it did not see: results that were brought from elsewhere."""

import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence
from snakemake.utils import update_config

from dprobust.errors import UserError
from dprobust.inventory import Job

ROOT = Path(__file__).resolve().parent.parent


def config(overlays: Iterable[Path]) -> dict[str, Any]:
    """config.yaml with overlays put over it, as Snakemake merges them."""
    merged: dict[str, Any] = {}
    for path in (ROOT / "config.yaml", *overlays):
        update_config(merged, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return merged


def command(*arguments: str, overlays: Sequence[Path] = (), folder: Path | None = None) -> list[str]:
    """A call of Snakemake on this repository's Snakefile; targets and options first."""
    files = ["--configfile", *(str(path.resolve()) for path in overlays)] if overlays else []
    where = ["--directory", str(folder)] if folder else []
    return [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *where, *arguments, *files]


def planned(*targets: str, overlays: Sequence[Path] = ()) -> dict[str, int]:
    """What a dry run would do: rule -> number of jobs.

    Raises:
        UserError: the dry run fails; Snakemake's own last lines tell why.
    """
    called = command(*targets, "--dry-run", overlays=overlays)
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]))
    table = (done.stdout + done.stderr).partition("Job stats:")[2].split("\n\n")[0]
    counts = (line.split() for line in table.splitlines()[3:] if line.strip())
    return {rule: int(number) for rule, number in counts if rule != "total"}


def remember(jobs: Iterable[Job], inputs: Mapping[str, Mapping[str, str]], folder: Path = Path()) -> None:
    """Tell Snakemake by what parameters, and from inputs of which SHA-256, results were made that it did not make.

    Without that it would see no change of config or code in them, and take newer data for changed data.

    Args:
        jobs: that made them.
        inputs: name of a job -> path -> SHA-256.
        folder: where Snakemake is called.
    """
    known = FilePersistence(nolock=True, path=(folder / ".snakemake").absolute())
    now = time.time()
    for job in jobs:
        record = MetadataRecord(
            rule=job.rule,
            input=sorted(job.inputs),
            log=[],
            params=sorted(repr(value) for value in job.params),
            record_format_version=RECORD_FORMAT_VERSION,
            starttime=now,
            endtime=now,
            incomplete=False,
            input_checksums={path: f"sha256:{digest}" for path, digest in inputs[job.name].items()},
        )
        for path in job.outputs:
            known._write_record(path, record)


def startup(runs: int = 3) -> float:
    """Seconds that a job needs before it works: the interpreter and what every measurement imports, the median."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import dprobust.stages.measure"], cwd=ROOT, check=True)
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[runs // 2]
