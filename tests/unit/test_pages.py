"""The README and the pages of docs/: links that lead somewhere, and a reference that is up to date."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT

from dprobust.reference import reference
from workflow.rulegraph import PICTURE, rulegraph, shown

PAGES = [
    ROOT / "README.md",
    ROOT / "data" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        path, _, anchor = link.partition("#")
        if ":" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}, link


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs_as_printed(page, tmp_path, monkeypatch):
    """The blocks of a page, one after the other; they take a model, images and a record for granted."""
    monkeypatch.chdir(tmp_path)
    (record := tmp_path / "results/paper/records/mnist/sgd/seed=0/fgsm.npz").parent.mkdir(parents=True)
    np.savez(record, predicted=np.zeros((1, 2, 3)), loss=["ce"], eps=[0.0, 0.1], label=np.zeros(3))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    names = {"model": model, "x": torch.rand(8, 1, 8, 8), "y": torch.randint(10, (8,))}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), names)  # noqa: S102


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.search(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)[1].split()[2:]
    assert sorted(listed) == sorted(page.stem for page in PAGES if page.parent.name == "docs" and page.stem != "index")


def test_the_reference_is_that_of_the_typed_settings():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert text == reference(), "run `make schema`"
    assert (
        "| `lr` | number, more than 0 and at most 1e+30 | `0.05` | Learning rate; with a schedule its peak. |" in text
    )
    for line in text.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_the_picture_of_the_rules_is_that_of_the_rules():
    assert shown(PICTURE) == rulegraph(), "run `make rulegraph`"


def test_pages_are_built(tmp_path):
    pytest.importorskip("furo", reason="`make docs` installs what builds the pages")
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "-b", "html", "docs", tmp_path]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
