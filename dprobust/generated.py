"""Generated parts of texts: a command writes what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

Needs neither torch nor Snakemake.
"""

import re
from collections.abc import Mapping

from dprobust.errors import UserError
from dprobust.published import Published
from dprobust.publishing import HOURS

MARKED = re.compile(r"<!-- (?P<name>[a-z-]+):begin -->\n(?P<content>.*?)<!-- (?P=name):end -->", re.DOTALL)
COLUMNS = {
    "": "",
    "claim": "claim",
    "paper": "paper",
    "ours": "ours, 95 % interval",
    "seeds": "seeds",
    "verdict": "verdict",
    "strongest measurement": "strongest measurement",
    "verdict under it": "verdict under it",
}
"""Columns of claims.md in the table of verdicts -> their heads there."""


def parts(published: Published) -> dict[str, str]:
    """The generated parts, from the published files: `claims`, the table of verdicts; `hours`, what the study has cost;
    `provenance`, what it was made with."""
    found = {"provenance": provenance(published)}
    if (path := f"results/{published.study}/claims/claims.md") in published:
        found["claims"] = verdicts(published.content(path).decode())
    found["hours"] = (published.folder / HOURS.replace(".csv", ".md")).read_text(encoding="utf-8")
    return found


def verdicts(claims: str) -> str:
    """The table of verdicts, from claims.md: fewer columns, and what it says below the table."""
    head, rule, *lines = claims.splitlines()
    names = _cells(head)
    chosen = [names.index(name) for name in COLUMNS]
    rows = [line for line in lines if line.startswith("|")]
    below = [line for line in lines if line and not line.startswith("|")]
    table = [list(COLUMNS.values()), ["---"] * len(chosen), *([_cells(row)[i] for i in chosen] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table) + "\n" + "\n".join(below) + "\n"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def provenance(published: Published) -> str:
    """A sentence on where and how the study was made."""
    manifest = published.manifest
    machine, by = manifest["machine"], manifest["records_by"]["commit"]
    commits = ", ".join(f"`{commit[:12]}`" for commit in by)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
    return (
        f"Made by `{manifest['command']}` at commit {commits} on {machine['cpu']} ({machine['system']}, "
        f"{machine['architecture']}), with {versions}; {len(manifest['files'])} files are published.\n"
    )


def filled(text: str, given: Mapping[str, str], where: str) -> str:
    """A text with its marked parts written.

    Raises:
        UserError: a marker names a part that there is not.
    """

    def part(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in given:
            raise UserError(f"{where}: <!-- {name}:begin -->: there is no such part, only {', '.join(sorted(given))}")
        return f"<!-- {name}:begin -->\n\n{given[name]}\n<!-- {name}:end -->"

    return MARKED.sub(part, text)
