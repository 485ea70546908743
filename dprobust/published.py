"""A published study, read: are its files whole, are they what a plan asks for, and how they get back into results/.

Nothing is mixed: a study is taken over whole or not at all, only where config and code still ask for what was
published, and only into results that hold nothing else. Needs neither torch nor Snakemake.
"""

import io
import json
import lzma
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dprobust import inventory, records, seals
from dprobust.errors import UserError
from dprobust.files import replaced, sha256
from dprobust.inventory import Job
from dprobust.plan import Plan
from dprobust.publishing import FOLDER, MANIFEST, SPECS, SUMS, arrays_digest, report_page

UPSTREAM = ("made_from", "trained", "pretrained", "reach")
"""Parts of a specification that are the key of another: what changed is told there."""


class Published:
    """A study as `dprobust.publishing.publish` left it.

    Args:
        study: its name.
        folder: where the studies' folders are.

    Attributes:
        manifest: its manifest.json.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """

    def __init__(self, study: str, folder: Path = FOLDER) -> None:
        self.study, self.folder = study, folder / study
        self.manifest: dict[str, Any] = self._json(MANIFEST)
        self.files: dict[str, dict[str, Any]] = self.manifest["files"]

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.folder / name}: no such file; of study {self.study} nothing is published") from None
        except ValueError as error:
            raise UserError(f"{self.folder / name}: damaged ({error}); check it out again") from None

    def __contains__(self, path: str) -> bool:
        """Whether the file of a path of the results is published."""
        return Path(path).is_relative_to(f"results/{self.study}") and self._name(path) in self.files

    def _name(self, path: str) -> str:
        return str(Path(path).relative_to(f"results/{self.study}"))

    def digest(self, path: str) -> str | None:
        """The SHA-256 of a file of the results as it is published; None if it is not."""
        return self.files[self._name(path)]["sha256"] if path in self else None

    def content(self, path: str) -> bytes:
        """The bytes of a published file, by its path among the results."""
        name = self._name(path)
        stored = (self.folder / self.files[name].get("stored", name)).read_bytes()
        if "stored" not in self.files[name]:
            return stored
        content = lzma.decompress(stored)
        if not name.endswith(".npz"):
            return content
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            np.savez_compressed(made := io.BytesIO(), **arrays)  # as `dprobust.records.write_arrays` writes them
        return made.getvalue()

    def check(self) -> None:
        """Compare every file with its digest.

        Raises:
            UserError: files are missing or not what was published; they are named.
        """
        wrong = []
        for line in (self.folder / SUMS).read_text(encoding="utf-8").splitlines():
            digest, _, name = line.partition("  ")
            path = self.folder / name
            if not path.is_file() or sha256(path) != digest:
                wrong.append(name)
        if wrong:
            raise UserError(
                f"{self.folder}: {len(wrong)} files are missing or not what was published: {_some(wrong)}; "
                f"git checkout {self.folder} brings them back"
            )

    def stale(self, todo: Iterable[Job]) -> list[str]:
        """What of the published config and code no longer is what a plan asks for.

        Args:
            todo: the jobs of the plan.

        Returns:
            A line for each job and setting that differ: ``train mnist/sgd: training.lr: published 0.05, now 0.1``. What
            follows from another job's change is not told again.
        """
        specs, was = self._json(SPECS), {job["name"]: job["spec"] for job in self.manifest["jobs"]}
        lines: dict[str, None] = {}
        follow: dict[str, None] = {}
        for job in todo:
            if was.get(job.name, job.key) == job.key:
                continue
            without_seed = "/".join(value for name, value in job.about.items() if name != "seed")
            now = json.loads(json.dumps(job.spec))
            for where, old, new in _differences(specs[was[job.name]], now):
                if where.split(".")[0] in UPSTREAM and not job.spec.get("weights"):
                    follow[f"{job.stage} {without_seed}: what it is made from"] = None
                    continue
                told = "code" if where.endswith("code") else f"{where}: published {_short(old)}, now {_short(new)}"
                lines[f"{job.stage} {without_seed}: {told}"] = None
        return list(lines or follow)

    def restore(self, todo: Collection[Job], root: Path = Path()) -> list[str]:
        """Bring published results back, with seals, where they are not there already.

        Args:
            todo: the jobs whose results to bring.
            root: the folder with results/.

        Returns:
            The paths of the files brought, below `root`.

        Raises:
            UserError: config or code ask for something else, a file is damaged, or results of other work are there.
        """
        if lines := self.stale(todo):
            raise UserError(
                f"{self.folder} is not what config and code now ask for: {_some(lines, '; ')}. Take the code of commit "
                f"{self.manifest['commit']}, or run the study anew: snakemake figures"
            )
        self.check()
        if other := self.other(todo, root):
            raise UserError(
                f"results/{self.study} holds {len(other)} files of other work ({_some(other)}); nothing was brought "
                "from what is published. Move that folder away, or go on with it: snakemake figures"
            )
        brought = []
        for job in todo:
            paths = [path for path in job.outputs if path in self and not (root / path).exists()]
            for path in paths:
                self._bring(path, root / path)
            if paths:
                seals.seal(root / path for path in job.outputs if (root / path).exists())
            brought += paths
        return brought

    def other(self, todo: Iterable[Job], root: Path = Path()) -> list[str]:
        """Results of these jobs that are there and are not what is published."""
        there = [path for job in todo for path in job.outputs if (root / path).exists()]
        return [path for path in there if not self._is(path, root / path)]

    def _is(self, path: str, file: Path) -> bool:
        entry = self.files.get(self._name(path))
        if entry is None or sha256(file) in (entry["sha256"], entry.get("whole")):
            return entry is not None
        # Another zlib compresses the same arrays to other bytes.
        return "arrays" in entry and arrays_digest(records.Arrays(file), entry.get("left_out", ())) == entry["arrays"]

    def _bring(self, path: str, to: Path) -> None:
        entry = self.files[self._name(path)]
        with replaced(to) as temporary:
            if "stored" in entry:
                temporary.write_bytes(self.content(path))
            else:
                shutil.copyfile(self.folder / self._name(path), temporary)

    def inputs_of(self, job: Job) -> dict[str, str]:
        """The SHA-256 of what a job was made from, by path, as its provenance and the manifest tell it."""
        found = {path: digest for path in job.inputs if (digest := self.digest(path))}
        for path in job.outputs:
            if path.endswith(".json") and path in self:
                found |= json.loads(self.content(path)).get("inputs", {})
        return {path: digest for path, digest in found.items() if path in job.inputs}

    def compare(self, plan: Plan) -> tuple[list[str], dict[str, str]]:
        """What is drawn in results/ against what is published, byte for byte.

        Returns:
            The files that are the same, and those that are not with the reason: other code or settings drew them, other
            versions, another commit (the page names it), or none of these.
        """
        was = {job["name"]: job["spec"] for job in self.manifest["jobs"]}
        versions = records.versions() == self.manifest["versions"]
        same, other = [], {}
        for job in inventory.shown(plan):
            changed = was.get(job.name) != job.key
            reason = "drawn by other code or settings" if changed else "" if versions else "drawn by other versions"
            for path in job.outputs:
                if path in self:
                    if sha256(Path(path)) == self.digest(path):
                        same.append(path)
                    else:
                        other[path] = reason
        page = report_page(plan)
        if page in self and Path(page).exists():
            if sha256(Path(page)) == self.digest(page):
                same.append(page)
            else:
                told = "" if records.commit() == self.manifest["commit"] else "names another commit"
                told = told or ("shows some of these" if other else "" if versions else "drawn by other versions")
                other[page] = told
        return same, other


def hint(study: str, folder: Path = FOLDER) -> str:
    """What to tell who asks for a study of which nothing is in results/ but something is published; "" otherwise."""
    if not (folder / study / MANIFEST).exists() or Path("results", study, "records").exists():
        return ""
    return (
        f"{folder / study} has the records of this study. This call makes all anew; to draw from those: make figures, "
        "or make restore and then the same call."
    )


def _differences(old: Any, new: Any, where: str = "") -> Iterable[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{where}.{name}" if where else name
            yield from _differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield where, old, new


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _some(names: list[str], between: str = ", ", n: int = 4) -> str:
    more = f"{between}and {len(names) - n} more" if len(names) > n else ""
    return between.join(names[:n]) + more
