"""What it takes to plan a large study: time, memory and files of `snakemake -n`, and what each of its jobs reads first.

The study is a grid: so many runs, five seeds, ten metrics beside the accuracy of every model. Nothing is trained. Times
are of the processor: planning takes one, and a machine with other work to do tells the same.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.harness import Row, Spread, Table, Target
from dprobust.errors import UserError

ROOT = Path(__file__).parents[1]
SEEDS = 5
SIGMAS, CLIPS = (0.5, 1.0, 1.3, 2.0, 3.0), (0.5, 1.0)
FIGURES = ("fgsm", "pgd_iterations", "distances", "curvature", "cross_sections", "membership")
TABLES = ("pgd", "ladder", "corruptions")
PAGES = ("attack_check",)
MEASURE = "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
MEASURE += "print(done.stdout + done.stderr, done.returncode)\n"
MEASURE += "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
MEASURE += "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
FILES = {"train": 6, "measure": 8, "account": 3}
"""Files of a job: outputs, what Snakemake notes of each, log, and times."""


def tables(quick: bool) -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as folder:
        sizes = (10,) if quick else (10, 100, 1000)
        plans = {size: dry_run(Path(folder), size) for size in sizes}
        asked = {
            "one figure": ("grid_curvature",),
            "trainings of a tenth of the runs: --batch models=1/10": ("models", "--batch", "models=1/10"),
        }
        parts = {name: dry_run(Path(folder), sizes[-1], *arguments) for name, arguments in asked.items()}
        jobs = {size: read(Path(folder), size) for size in sizes}
    large = sizes[-1]
    yield Table(
        "Planning a grid of runs, 5 seeds, 10 metrics and accuracy: snakemake -n",
        "s",
        [
            *(Row(f"{size} runs", Spread.of([plan.seconds]), plan.jobs) for size, plan in plans.items()),
            *(Row(f"{large} runs, {name}", Spread.of([plan.seconds]), plan.jobs) for name, plan in parts.items()),
        ],
        targets=[Target(f"snakemake -n of {large} runs", Spread.of([plans[large].seconds]), 180, unit="s")],
        notes=[f"{large} runs: {plans[large].files:,} files in the end."],
        counted="jobs",
    )
    yield Table(
        "The same, memory at most",
        "MB",
        [
            *(Row(f"{size} runs", Spread.of([plan.memory]), plan.jobs) for size, plan in plans.items()),
            *(Row(f"{large} runs, {name}", Spread.of([plan.memory]), plan.jobs) for name, plan in parts.items()),
        ],
        counted="jobs",
    )
    yield Table(
        "What each job on a cluster reads before its work: the Snakefile",
        "s",
        [Row(f"{size} runs", Spread.of([seconds]), 1) for size, seconds in jobs.items()],
    )


def grid(runs: int) -> dict:
    """An overlay with so many runs of DP-SGD, a multiple of ten, in ten figures, tables and pages."""
    rates = [round(0.001 * (i + 1), 4) for i in range(runs // (len(SIGMAS) * len(CLIPS)))]
    entry = {"runs": [{"sigma": list(SIGMAS), "clip": list(CLIPS), "lr": rates}]}
    overlay = {"study": f"grid_{runs}", "seeds": list(range(SEEDS)), "claims": None, "datasets": {"cifar10": None}}
    for section, kinds in {"figures": FIGURES, "tables": TABLES, "pages": PAGES}.items():
        overlay[section] = {f"grid_{kind}": {"shows": kind, "title": kind, **entry} for kind in kinds}
    overlay["figures"]["grid_distances"]["norm"] = "l2"
    overlay["only"] = ["accuracy", *(name for section in ("figures", "tables", "pages") for name in overlay[section])]
    return overlay


class Plan:
    """A dry run: its seconds, megabytes and jobs, and the files that the jobs make."""

    def __init__(self, seconds: float, memory: float, models: int, metrics: int) -> None:
        self.seconds, self.memory = seconds, memory
        counts = {"train": models, "measure": models * metrics, "account": models // SEEDS if metrics else 0}
        self.jobs = sum(counts.values())
        self.files = sum(count * FILES[rule] for rule, count in counts.items())


def dry_run(folder: Path, runs: int, *arguments: str) -> Plan:
    """Plan the grid, or what arguments ask for of it, up to where Snakemake would play it through for printing."""
    used = _snakemake(folder, grid(runs), *arguments, "--dry-run", "--quiet", "rules", "progress")
    models = runs * SEEDS // (10 if "--batch" in arguments else 1)
    metrics = 0 if "models" in arguments else 1 if arguments else len(FIGURES + TABLES + PAGES) + 1
    return Plan(*used, models, metrics)


def read(folder: Path, runs: int) -> float:
    """Seconds that a job's Snakemake takes to read the Snakefile."""
    return _snakemake(folder, grid(runs), "--mode", "subprocess", "--list-rules")[0]


def _snakemake(folder: Path, overlay: dict, *arguments: str) -> tuple[float, float]:
    """Seconds and MB that Snakemake takes in a folder without results."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(overlay), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += [*arguments, "--configfile", str(path)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    told, _, used = done.stdout.strip().rpartition("\n")
    if not told.endswith(" 0"):
        raise UserError(f"snakemake {' '.join(arguments)} failed: {(told or done.stderr).strip()[-500:]}")
    seconds, memory = map(float, used.split())
    return seconds, memory
