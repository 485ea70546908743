"""Publish a finished study: a folder small enough for version control, from which every figure is drawn again.

`published/<study>/` has the paths of `results/<study>/`. Besides them: manifest.json (every file with its SHA-256,
every job with its specification, versions, commit, machine), specs.json, config.yaml, jobs.csv and hours.{csv,md} from
the benchmark files, SHA256SUMS (``sha256sum -c SHA256SUMS``). Some files are kept smaller than they were made:

* CSV and JSON of at least `PACKED` bytes are compressed, ``.xz``; the manifest has the digest of the text;
* an .npz that takes `WORTH` of its size so is the .xz of the same arrays, not compressed otherwise (``xz -d``, NumPy);
* arrays that a metric calls `UNPUBLISHED` (a constant in its settings.py) are left out of its .npz; the manifest has
  the digests of the whole file and of each array left out.

`dprobust.published` reads such a folder. Needs neither torch nor Snakemake.
"""

import hashlib
import io
import json
import lzma
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dprobust import inventory, records, seals
from dprobust.errors import UserError
from dprobust.files import sha256, write_json
from dprobust.hours import hours, jobs, markdown
from dprobust.inventory import Job
from dprobust.plan import Plan

LIMIT = 60_000_000
"""Bytes that a published study takes at most."""
PACKED = 50_000
"""Bytes from which text is stored compressed."""
WORTH = 0.9
"""Share of its size that an .npz must fall below to be stored as .xz."""
FOLDER = Path("published")
MANIFEST, SPECS, CONFIG, SUMS = "manifest.json", "specs.json", "config.yaml", "SHA256SUMS"
JOBS, HOURS = "jobs.csv", "hours.csv"


@dataclass(frozen=True)
class Made:
    """Where and how a study was made.

    Attributes:
        command: that made it.
        cpu: the processor's name.
        capability: the instructions that torch uses on it ("AVX2", "AVX512", ...).
        startup: seconds that a job needs before it works.
    """

    command: str
    cpu: str
    capability: str = ""
    startup: float | None = None


def publish(plan: Plan, config: Mapping[str, Any], made: Made, folder: Path = FOLDER, limit: int = LIMIT) -> Path:
    """Write the published form of a study; what was there of it before is replaced, at once and only if all went well.

    Args:
        plan: of the study, whose results lie in results/<study>/.
        config: the mapping that the study was made of.
        made: where and how.
        folder: where the studies' folders go.
        limit: bytes that it may take.

    Returns:
        The folder of the study.

    Raises:
        UserError: files are missing or damaged, or all take more than `limit`; the largest are named.
    """
    todo = [*inventory.made(plan), *inventory.shown(plan)]
    wanted = _wanted(plan, todo)
    _check(plan, wanted)
    target = folder / plan.study.name
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        bulk = {path: _bulk(plan, job) for job in todo for path in job.outputs if path.endswith(".npz")}
        shown = {path for job in todo if job.stage == "show" for path in job.outputs}
        results = Path("results") / plan.study.name
        files = {
            inventory.relative(plan, path): _store(Path(path), new, results, bulk.get(path, ()), path not in shown)
            for path in wanted
        }
        _tables(results, new, made)
        (new / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
        write_json(new / SPECS, {job.key: job.spec for job in todo})
        _manifest(plan, todo, files, made, new)
        _sums(new)
        _fits(new, limit)
        shutil.rmtree(target, ignore_errors=True)
        new.replace(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def report_page(plan: Plan) -> str:
    """The path of the study's page."""
    return f"results/{plan.study.name}/report.html"


def array_digest(values: np.ndarray) -> str:
    """The SHA-256 of an array's type, shape and values."""
    head = f"{values.dtype.str} {values.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).hexdigest()


def arrays_digest(arrays: Mapping[str, np.ndarray], without: Iterable[str] = ()) -> str:
    """The SHA-256 of named arrays, whatever their compression."""
    names = sorted(set(arrays) - set(without))
    return hashlib.sha256("".join(f"{name} {array_digest(arrays[name])}\n" for name in names).encode()).hexdigest()


def processor() -> str:
    """The processor's name, as its maker calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, "") or platform.processor() or platform.machine()


def _wanted(plan: Plan, todo: Iterable[Job]) -> list[str]:
    """What is published: what displays read, with provenance, the displays, the page, the headline's models."""
    wanted = dict.fromkeys(inventory.read(plan))
    for job in todo:
        if job.stage in ("measure", "show"):
            wanted |= dict.fromkeys(path for path in job.outputs if not path.endswith(".npz"))
        elif job.stage in ("train", "pretrain"):
            wanted |= dict.fromkeys(path for path in job.outputs if path.endswith(".json"))
    return list(wanted | dict.fromkeys([*inventory.headline(plan), report_page(plan)]))


def _check(plan: Plan, wanted: list[str]) -> None:
    """Refuse what is unfinished or damaged."""
    if missing := [path for path in wanted if not Path(path).is_file()]:
        raise UserError(
            f"study {plan.study.name} is not finished: {len(missing)} of {len(wanted)} files are missing, "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}; run it to its end first"
        )
    if broken := seals.broken(map(Path, wanted)):
        raise UserError(
            f"{', '.join(map(str, broken[:5]))}: not the bytes that a job wrote there; remove and run the study again"
        )


def _bulk(plan: Plan, job: Job) -> tuple[str, ...]:
    """The arrays of a record that are not published."""
    return getattr(plan.registry.metric(job.about["metric"]), "UNPUBLISHED", ()) if job.stage == "measure" else ()


def _store(source: Path, to: Path, results: Path, bulk: tuple[str, ...], pack: bool) -> dict[str, Any]:
    """Store a file, and say how: `sha256` of what it is, `stored` where its name is another, what is left out."""
    target = to / source.relative_to(results)
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = target.with_name(target.name + ".xz")
    stored = {"stored": str(packed.relative_to(to))}
    if source.suffix == ".npz":
        whole = records.Arrays(source)
        left_out = {name: array_digest(whole[name]) for name in bulk if name in whole}
        kept = {name: values for name, values in whole.items() if name not in left_out}
        records.write_arrays(target, kept)
        entry = {"sha256": sha256(target), "arrays": arrays_digest(kept)}
        entry |= {"whole": sha256(source), "left_out": left_out} if left_out else {}
        np.savez(plain := io.BytesIO(), **kept)
        content = _xz(plain.getvalue())
        if len(content) >= WORTH * target.stat().st_size:
            return entry
        target.unlink()
        packed.write_bytes(content)
        return entry | stored
    if pack and source.suffix in (".csv", ".json") and source.stat().st_size >= PACKED:
        packed.write_bytes(_xz(source.read_bytes()))
        return {"sha256": sha256(source)} | stored
    shutil.copyfile(source, target)
    return {"sha256": sha256(target)}


def _xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def _tables(results: Path, to: Path, made: Made) -> None:
    each = jobs(results)
    records.write_table(to / JOBS, each)
    table = hours(each, made.startup)
    records.write_table(to / HOURS, table)
    records.write_text(to / HOURS.replace(".csv", ".md"), markdown(table))


def _manifest(plan: Plan, todo: list[Job], files: Mapping[str, Any], made: Made, to: Path) -> None:
    """manifest.json: no time of the day is in it, so that the same study published again is the same bytes."""
    told = [
        records.read_json(Path(path))
        for job in todo
        if job.stage in ("pretrain", "train", "measure")
        for path in job.outputs
        if path.endswith(".json")
    ]
    by_commit = Counter(str(record["commit"]) for record in told)
    by_versions = Counter(json.dumps(record["versions"], sort_keys=True) for record in told)
    write_json(
        to / MANIFEST,
        {
            "study": plan.study.name,
            "title": plan.study.settings.title,
            "note": plan.note(plan.study.datasets),
            "command": made.command,
            "machine": {"cpu": made.cpu, "capability": made.capability, "system": platform.system()}
            | {"architecture": platform.machine()},
            "commit": records.commit(),
            "versions": records.versions(),
            "records_by": {
                "commit": dict(by_commit),
                "versions": [{"records": n, "versions": json.loads(text)} for text, n in by_versions.items()],
            },
            "jobs": [
                {
                    "name": job.name,
                    "stage": job.stage,
                    "about": dict(job.about),
                    "spec": job.key,
                    "files": [inventory.relative(plan, path) for path in job.outputs],
                }
                for job in todo
            ],
            "files": dict(files),
        },
    )


def _sums(to: Path) -> None:
    paths = sorted(path for path in to.rglob("*") if path.is_file())
    records.write_text(to / SUMS, "".join(f"{sha256(path)}  {path.relative_to(to).as_posix()}\n" for path in paths))


def _fits(to: Path, limit: int) -> None:
    sizes: Counter[str] = Counter()
    for path in to.rglob("*"):
        if path.is_file():
            top, *rest = path.relative_to(to).parts
            sizes[f"{top}: {path.name}" if rest and top in ("records", "models") else top] += path.stat().st_size
    if (total := sum(sizes.values())) > limit:
        largest = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.most_common(6))
        raise UserError(
            f"{total / 1e6:.1f} MB are more than the {limit / 1e6:.0f} MB of a published study; largest: {largest}; "
            "name arrays as UNPUBLISHED in the settings.py of their metric"
        )
