"""Publish a study, draw its figures from that, and check it: make publish, figures, restore, readme, verify.

Called in the repository's root as `python -m workflow.publishing WHAT [OVERLAY ...]`, overlays as for --configfile.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from dprobust import generated, inventory, verifying
from dprobust.errors import UserError
from dprobust.plan import Plan
from dprobust.published import Published
from dprobust.publishing import FOLDER, Made, processor, publish, report_page
from dprobust.running import only_run
from dprobust.study import Study
from workflow import snakemakes
from workflow.starting import LOCK

ROOT = snakemakes.ROOT
DOCS = ("README.md", "docs/reproduction.md")
"""Texts with generated parts."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.publishing", description=__doc__.partition(":")[0])
    whats = parser.add_subparsers(dest="what", required=True)
    for name, told in (
        ("publish", "put a finished study into published/"),
        ("figures", "draw every figure, table, page and verdict; trains and measures nothing"),
        ("restore", "bring what is published into results/, for Snakemake to go on with"),
        ("readme", "write the generated parts of README and docs"),
        ("verify", "make random cells of the published study again and compare"),
    ):
        what = whats.add_parser(name, help=told, description=told)
        what.add_argument("overlays", nargs="*", type=Path, help="as for --configfile of snakemake")
        what.add_argument("--cores", type=int, default=None, help="processors to use; all by default")
        if name == "publish":
            what.add_argument("--command", default="", help="that made the study; told from the overlays by default")
            what.add_argument("--cpu", default="", help="the processor that made it, if it is not this one's")
        if name == "verify":
            what.add_argument("-k", type=int, default=3, help="cells")
            what.add_argument("--seed", type=int, default=None, help="of the draw; random by default")
            what.add_argument("--minutes", type=float, default=15.0, help="that it may take, by the published times")
    asked = parser.parse_args()
    try:
        plan = Plan(Study(snakemakes.config(asked.overlays)), ROOT / "workflow" / "scripts")
        does = {"publish": _publish, "figures": _figures, "restore": _restore, "readme": _readme, "verify": _verify}
        sys.exit(does[asked.what](plan, asked))
    except (UserError, OSError, yaml.YAMLError) as error:
        sys.exit(f"error: {error}")


# -- publish ----------------------------------------------------------------------------------------------------------


def _publish(plan: Plan, asked: argparse.Namespace) -> int:
    """Refuse what is unfinished or not what the plan asks for, publish, and draw all of it from there once."""
    if waiting := snakemakes.planned("all", overlays=asked.overlays):
        told = ", ".join(f"{rule} {number}" for rule, number in waiting.items() if rule != "all")
        raise UserError(
            f"study {plan.study.name} is not finished, or no longer what config and code ask for; Snakemake would do: "
            f"{told}; snakemake -n tells why"
        )
    given = "".join(f" {path}" for path in asked.overlays)
    command = asked.command or "snakemake" + (f" --configfile{given}" if given else "")
    made = Made(command, asked.cpu or processor(), verifying.capability(), snakemakes.startup())
    folder = publish(plan, snakemakes.config(asked.overlays), made)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {len(list(folder.rglob('*')))} files, {size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as elsewhere:
        _as_elsewhere(Path(elsewhere))
        shutil.copytree(folder, Path(elsewhere) / folder)
        call = [sys.executable, "-m", "workflow.publishing", "figures", *(str(p.resolve()) for p in asked.overlays)]
        return subprocess.run(call, cwd=elsewhere, env=_environment(), check=False).returncode


def _as_elsewhere(folder: Path, without: tuple[str, ...] = ("results", "published", ".snakemake", "data")) -> None:
    """Make another folder look like this one, but for results: what a config names by relative paths is found there."""
    for path in Path.cwd().iterdir():
        if path.name not in without and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


# -- figures, restore -------------------------------------------------------------------------------------------------


def _restore(plan: Plan, asked: argparse.Namespace) -> int:
    brought = _bring(plan)
    print(f"{len(brought)} files of {FOLDER / plan.study.name} are now in results/{plan.study.name}")
    return 0


def _bring(plan: Plan) -> list[str]:
    """Restore what displays are made from, models among it, and displays whose own files are not here (images)."""
    published = Published(plan.study.name)
    todo = inventory.made(plan)
    for job in inventory.shown(plan):
        data = [path for path in job.inputs if path.startswith("data/")]
        known = any(was["name"] == job.name and was["spec"] == job.key for was in published.manifest["jobs"])
        if known and not all(Path(path).exists() for path in data):
            todo.append(job)
    Path(".snakemake").mkdir(exist_ok=True)
    lock = only_run(LOCK)
    try:
        brought = published.restore(todo)
        there = set(brought)
        snakemakes.remember(
            (new := [job for job in todo if there.intersection(job.outputs)]),
            {job.name: published.inputs_of(job) for job in new},
        )
    finally:
        lock.release()
    return brought


def _figures(plan: Plan, asked: argparse.Namespace) -> int:
    """Draw everything, from results/ if all is there, else from what is published; compare with that."""
    page = report_page(plan)
    drawing = {job.rule for job in inventory.shown(plan)} | {"report", "get", "prepare"}

    def more() -> dict[str, int]:
        planned = snakemakes.planned(page, overlays=asked.overlays)
        return {rule: number for rule, number in planned.items() if rule not in drawing}

    if waiting := more():
        if not (FOLDER / plan.study.name).exists():
            raise UserError(
                f"results/{plan.study.name} lacks what figures are made from ({_told(waiting)}), and of study "
                f"{plan.study.name} nothing is published; snakemake figures trains and measures it"
            )
        print(f"{len(_bring(plan))} files of {FOLDER / plan.study.name} brought to results/{plan.study.name}")
        if waiting := more():
            raise UserError(
                f"more is asked for than {FOLDER / plan.study.name} has, and make figures trains and measures nothing: "
                f"{_told(waiting)}; snakemake figures does"
            )
    cores = ["--cores", str(asked.cores)] if asked.cores else []
    call = snakemakes.command(page, "--quiet", "rules", *cores, overlays=asked.overlays)
    if code := subprocess.run(call, check=False).returncode:
        return code
    print(f"Report: {Path(page).absolute()}")
    return _compared(plan) if (FOLDER / plan.study.name).exists() else 0


def _told(jobs: dict[str, int]) -> str:
    return ", ".join(f"{rule} {number}" for rule, number in jobs.items())


def _compared(plan: Plan) -> int:
    published = Published(plan.study.name)
    read = set(inventory.read(plan))
    if any(path in read for path in published.other(inventory.made(plan))):
        print(f"results/{plan.study.name} is another run than {published.folder}: not compared")
        return 0
    same, other = published.compare(plan)
    print(f"{len(same)} of {len(same) + len(other)} files are byte for byte those of {FOLDER / plan.study.name}")
    for path, reason in other.items():
        print(f"  another: {path} ({reason or 'by the same code, settings and versions: look into it'})")
    return 1 if any(not reason for reason in other.values()) else 0


# -- readme, verify ---------------------------------------------------------------------------------------------------


def _readme(plan: Plan, asked: argparse.Namespace) -> int:
    parts = generated.parts(Published(plan.study.name))
    for name in DOCS:
        if (path := Path(name)).exists():
            text = path.read_text(encoding="utf-8")
            new = generated.filled(text, parts, name)
            path.write_text(new, encoding="utf-8")
            print(f"{name}: {'written' if new != text else 'as it was'}")
    return 0


def _verify(plan: Plan, asked: argparse.Namespace) -> int:
    published = Published(plan.study.name)
    todo = inventory.made(plan)

    def make(paths: list[str], given: list[str], folder: Path) -> None:
        """Make files in a folder of its own, from data/ and published models."""
        (folder / "results").mkdir()
        _as_elsewhere(folder, without=("results", "published"))
        use = [job for job in todo if set(given).intersection(job.outputs)]
        published.restore(use, folder)
        snakemakes.remember(use, {job.name: published.inputs_of(job) for job in use}, folder)
        cores = ["--cores", str(asked.cores)] if asked.cores else []
        call = snakemakes.command(*paths, "--quiet", "rules", *cores, overlays=asked.overlays, folder=folder)
        if subprocess.run(call, check=False).returncode:
            raise UserError("the cells could not be made again; above stands why")

    def obtain(paths: list[str]) -> bool:
        """Get and prepare data, in data/ here."""
        if all(Path(path).exists() for path in paths):
            return True
        call = snakemakes.command(*paths, "--quiet", "all", overlays=asked.overlays)
        return subprocess.run(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0

    asking = verifying.Asked(k=asked.k, seed=asked.seed, minutes=asked.minutes, cores=asked.cores)
    return 0 if verifying.verify(plan, published, asking, make, obtain) else 1


if __name__ == "__main__":
    main()
