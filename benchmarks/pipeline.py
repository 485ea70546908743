"""What the workflow costs besides the work: the start of a job, a dry run, and the times of finished studies."""

import csv
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Row, Spread, Table, Target, interleave, rows, timed
from dprobust.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN, EVALUATE = "imports of a training job", "imports of an evaluation"
IMPORTS = {
    "Python alone": "",
    "import torch": "import torch",
    TRAIN: "import dprobust.stages.train",
    EVALUATE: "import dprobust.stages.measure, dprobust.metrics.fgsm.measure",
}
PAPER, DEMO = "config.yaml (the paper)", "presets/demo.yaml"


def tables(quick: bool) -> Iterator[Table]:
    start = start_up(2 if quick else 7)
    yield start
    yield dry_run(1 if quick else 5)
    seconds = next(row.value.median for row in start.rows if row.name == TRAIN)
    folders = sorted(
        path.parent for path in ROOT.glob("results/*/benchmarks") if (path.parent / "report.html").exists()
    )
    if not folders:
        note = "There is no finished study in results/: `make demo`, then `make bench ARGS=pipeline`, gives its times."
        yield Table("Times of a finished study", "s", [], notes=[note])
    for folder in folders:
        yield study(folder, seconds)


def start_up(rounds: int) -> Table:
    contestants = {name: timed(lambda code=code: _run("-c", code)) for name, code in IMPORTS.items()}
    samples = interleave(contestants, rounds)
    target = Target("start of a training job", Spread.of(samples[TRAIN]), 4, unit="s")
    return Table("Start of a job: a Python process up to its first line of work", "s", rows(samples), targets=[target])


def dry_run(rounds: int) -> Table:
    """`snakemake -n` of whole studies, as if there were no results."""

    def plan(*configs: str) -> Callable[[], object]:
        return lambda: _run("-m", "snakemake", "-n", "--quiet", *configs, "--config", "study=not_yet_run")

    contestants = {PAPER: timed(plan()), DEMO: timed(plan("--configfile", "presets/demo.yaml"))}
    samples = interleave(contestants, rounds)
    target = Target("snakemake -n of the paper", Spread.of(samples[PAPER]), 6, unit="s")
    return Table("Dry run of a study: snakemake -n", "s", rows(samples), targets=[target])


def study(folder: Path, start: float) -> Table:
    """Seconds that the jobs of a finished study took, from Snakemake's benchmark files, and the share of their start.

    folder: results/<study>; start: the seconds a job takes to start.
    """
    jobs: dict[str, list[float]] = defaultdict(list)
    for path in sorted((folder / "benchmarks").rglob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            stage = path.relative_to(folder / "benchmarks").parts[0].removesuffix(".tsv")
            jobs[stage] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    total, count = sum(map(sum, jobs.values())), sum(map(len, jobs.values()))
    if not count:
        raise UserError(f"{folder}/benchmarks holds no benchmark file; remove the folder or run the study again")
    share = Spread.of([100 * count * start / total])
    stages = sorted(jobs.items(), key=lambda stage: -sum(stage[1]))
    what = f"start of all jobs in the time of the study {folder.name}"
    return Table(
        f"Times of the study {folder.name}, all jobs one after the other",
        "s",
        [Row("all", Spread.of([total]), count), *(Row(name, Spread.of([sum(s)]), len(s)) for name, s in stages)],
        # What the target is about; a demo's trainings are too short for it.
        targets=[Target(what, share, 3, unit="%")] if folder.name == "paper" else [],
        notes=[f"{what[0].upper()}{what[1:]}: {share.median:.2g} %, {count} jobs of {start:.1f} s."],
        counted="jobs",
    )


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"python {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-300:]}")
