"""Every command that a page prints in a block is run here, dry, or its page says who runs it or why nobody does.

A comment right before a block says so: `<!-- run by: tests/FILE.py::test_name -->` or `<!-- not run: why -->`.
YAML of a page that begins with `# name.yaml` is the file of that name for the page's commands.
"""

import errno
import multiprocessing
import os
import re
import shlex
import subprocess
import sys

import pytest
import snakemake.cli
from helpers import ROOT

import dprobust.plan  # noqa: F401 (so that the forked processes have it)

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "data/README.md", "benchmarks/README.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>not run|run by): (?P<told>[^>]+?) -->\n)?"
    r"^ *```(?:sh|bash|shell|console)\n(?P<code>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


def text(page):
    return page.read_text(encoding="utf-8")


def commands(code):
    """The commands of a block, as words; what follows a pipe or a redirection is left out."""
    for line in code.replace("\\\n", " ").splitlines():
        line = re.split(r" (?:\||>|2>) ", line.strip().removeprefix("$ "))[0]
        if words := shlex.split(line, comments=True):
            yield words


def files(page):
    """Name -> content of the YAML files that a page shows."""
    shown = re.finditer(r"^```yaml\n(# ([\w.-]+\.yaml)\n.*?)^```", text(page), re.MULTILINE | re.DOTALL)
    return {found[2]: found[1] for found in shown}


def rows():
    """(page, command) of all that is to be run dry, each command once, with `-n` and without being one."""
    found = {}
    for page in PAGES:
        for block in BLOCK.finditer(text(page)):
            if not block["mark"]:
                for words in commands(block["code"]):
                    found.setdefault(shlex.join(word for word in words if word != "-n"), page)
    return [(page, command) for command, page in found.items()]


ROWS = rows()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The repository without data and results, so that nothing is written into it."""
    folder = tmp_path_factory.mktemp("tree")
    for path in ROOT.iterdir():
        if path.name not in (".git", ".venv", ".snakemake", "data", "results"):
            (folder / path.name).symlink_to(path)
    (folder / "data").mkdir()
    return folder


@pytest.mark.parametrize(("page", "command"), ROWS, ids=[command for _, command in ROWS])
def test_a_command_of_a_page(page, command, tree):
    for name, content in files(page).items():
        (tree / name).write_text(content, encoding="utf-8")
    program, *words = shlex.split(command)
    if program == ".venv/bin/python" and words[:2] == ["-m", "snakemake"]:
        program, words = "snakemake", words[2:]
    if program == "make":
        done = subprocess.run(["make", "--dry-run", *words], cwd=tree, capture_output=True, text=True, check=False)
        code, output = done.returncode, done.stdout + done.stderr
    elif program == "snakemake":
        code, output = planned(words, tree)
    else:
        pytest.fail(f"{page.relative_to(ROOT)}: nothing runs {command!r}: say before its block who does, or why nobody")
    assert code == 0, output[-3000:]


def planned(words, folder):
    """Exit status and output of a dry run. Its process is forked from this one, which has imported what it needs."""
    output = folder / "output.txt"
    process = multiprocessing.get_context("fork").Process(target=_plan, args=(words, folder, output))
    process.start()
    process.join()
    return process.exitcode, output.read_text(encoding="utf-8")


def _plan(words, folder, output):
    os.chdir(folder)
    sys.argv = ["snakemake", "--dry-run", *words]
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        snakemake.cli.main()


def test_there_are_commands():
    assert len(ROWS) > 20 and {page.name for page, _ in ROWS} >= {"README.md", "targets.md", "own-study.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_marks_and_words(page):
    """Who is said to run a block does; reasons are given; every mark stands before a block; `make WORD` is a target."""
    blocks = list(BLOCK.finditer(text(page)))
    for block in blocks:
        if block["mark"] == "run by":
            path, _, name = block["told"].partition("::")
            assert re.search(rf"^def {name.partition('[')[0]}\(", (ROOT / path).read_text(), re.MULTILINE), block[
                "told"
            ]
        assert block["mark"] is None or len(block["told"]) > 10
    assert len(re.findall(r"^ *<!-- (?:not run|run by):", text(page), re.MULTILINE)) == sum(
        bool(block["mark"]) for block in blocks
    )
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text(page))) <= targets


def test_a_command_that_nobody_runs_is_noticed():
    """The table above knows blocks, marks, comments, continued lines and quotes."""
    page = 'x\n```sh\nmake a ARGS="b c"   # d\n$ pip install \\\n  e | f\n```\n<!-- not run: no -->\n```sh\ng\n```\n'
    first, second = BLOCK.finditer(page)
    assert list(commands(first["code"])) == [["make", "a", "ARGS=b c"], ["pip", "install", "e"]]
    assert (first["mark"], second["mark"]) == (None, "not run")


def test_the_disk_commands_of_troubleshooting(tmp_path):
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    for path in ("results/demo/report.html", "results/mine/x", "data/mnist/train.npz", ".venv/y", ".snakemake/z"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    page = text(ROOT / "docs" / "troubleshooting.md")
    (block,) = [b for b in BLOCK.finditer(page) if b["mark"] == "run by" and "disk" in b["told"]]
    subprocess.run(["sh", "-e", "-c", block["code"]], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".venv", "Makefile", "data"]


def sources():
    """The code whose messages users meet, strings that are joined taken together."""
    paths = [*ROOT.glob("dprobust/**/*.py"), *ROOT.glob("workflow/**/*.py"), *ROOT.glob("workflow/**/*.smk")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in [*paths, ROOT / "Makefile"])
    return re.sub(r'"\s*\n\s*f?"', "", code) + os.strerror(errno.ENOSPC)


def test_messages_of_troubleshooting_are_those_of_the_code():
    code = sources()
    table = re.findall(r"^\| (`.*?) \| ", text(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    messages = [re.match(r"`([^`]+)`", cell)[1] for cell in table if "Snakemake's own" not in cell]
    assert len(messages) > 25
    for message in messages:
        for part in re.split(r"\s*…\s*", message):
            assert part.strip("; ") in code, message
