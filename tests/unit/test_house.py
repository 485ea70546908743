"""How the repository is built: sizes, directions of imports, and no name of a metric, dataset or model in workflow/."""

import ast
import re

import pytest
from helpers import ROOT

from dprobust.registry import Registry
from dprobust.sources import SOURCES

PACKAGE = ROOT / "dprobust"
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = [*sorted((ROOT / "workflow").rglob("*.smk")), *sorted((ROOT / "workflow").rglob("*.py")), ROOT / "Snakefile"]


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_sizes():
    assert lines(ROOT / "Snakefile") < 60
    rules = {path.name: lines(path) for path in (ROOT / "workflow" / "rules").glob("*.smk")}
    assert rules["common.smk"] < 100 and sum(rules.values()) < 430
    assert {name(path) for path in MODULES if lines(path) > 450} == set()


def test_workflow_knows_no_metric_dataset_or_model():
    registry = Registry()
    words = {*registry.metrics, *registry.displays, *registry.models, *registry.materials, *SOURCES}
    # Words of the stages themselves, which displays are called by, too.
    words -= {"clean", "accuracy", "privacy", "summary", "audit"}
    for path in CODE:
        found = set(re.findall(r"[a-z][a-z0-9_]*", path.read_text(encoding="utf-8"))) & words
        assert not found, f"{path.relative_to(ROOT)} names {', '.join(sorted(found))}"


def test_rules_import_no_torch():
    for path in CODE:
        if path.suffix == ".smk" or path.name == "Snakefile":
            assert "import torch" not in path.read_text(encoding="utf-8")


def imports(path):
    """Modules of the package that a module imports when it is imported: those inside functions do not count."""
    known = {name(module) for module in MODULES}
    todo, found = [ast.parse(path.read_bytes())], set()
    while todo:
        for node in ast.iter_child_nodes(todo.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            todo.append(node)
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def test_the_package_has_no_cycle():
    graph = {name(path): imports(path) - {name(path)} for path in MODULES}
    # A package that imports its own modules is read with them.
    graph = {
        module: {other for other in others if not module.startswith(f"{other}.")} for module, others in graph.items()
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in sorted(graph[module]):
                visit(other)
            path.pop()
            done.add(module)

    for module in graph:
        visit(module)


@pytest.mark.parametrize("kind", ["metrics", "displays", "models", "materials"])
def test_everything_found_has_its_parts(kind):
    registry = Registry()
    for thing, package in getattr(registry, kind).items():
        folder = ROOT.joinpath(*package.split("."))
        needed = {"metrics": ["settings.py"], "displays": ["display.py", "caption.rst"]}.get(kind, ["settings.py"])
        for file in needed:
            assert (folder / file).is_file(), f"{kind} {thing}: no {file}"
