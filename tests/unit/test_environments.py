"""Lock, package, conda environments, Dockerfile and CI agree on versions, and each has what its code imports."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from shutil import copy, copytree, ignore_patterns

import pytest
import yaml
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from dprobust.fingerprint import Reach
from dprobust.registry import Registry

PYTHONS = ["3.11", "3.12", "3.13"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENTS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "envs").glob("*.yaml")}


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


def pins(found):
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in found}


LOCK = pins(requirements("requirements.lock"))


def conda_pins(environment):
    return pins(map(Requirement, ENVIRONMENTS[environment]["dependencies"][-1]["pip"]))


def test_the_lock_pins_each_package_once_for_every_python():
    found = requirements("requirements.lock")
    assert len(found) == len(LOCK) > 90
    for requirement in found:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version
        assert not requirement.marker or "python" not in str(requirement.marker)
    assert not [name for name in LOCK if re.match("nvidia|cuda|triton", name)]


def test_the_lock_holds_what_is_installed_packages_need():
    """Of every package of the lock that is installed here, what it requires on this machine, but for CUDA."""
    for name in LOCK:
        for needed in needs(name):
            assert needed in LOCK or re.match("nvidia|cuda|triton", needed), f"{name} needs {needed}"


@pytest.mark.parametrize("python", [*(f"{version}.0" for version in PYTHONS), "3.11.2"])
def test_the_pins_can_be_installed_in_the_first_patch_release_of_each_python(python):
    """By what the installed packages, if they are those of the lock, say of Python."""
    seen = 0
    for name, pin in LOCK.items():
        try:
            about = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if pin == f"=={about['Version'].partition('+')[0]}":
            seen += 1
            assert SpecifierSet(about.get("Requires-Python") or "").contains(python), f"{name}{pin}"
    assert seen > 90


def test_direct_requirements_are_in_the_lock_and_the_package_asks_for_no_more():
    direct = requirements("requirements.in")
    for requirement in direct:
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(LOCK[name].removeprefix("==")), requirement
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["workflow"]):
        requirement = Requirement(text)
        assert canonicalize_name(requirement.name) in pins(direct), text
        bounds = {specifier.operator for specifier in requirement.specifier}
        assert bounds == {">=", "<"} and requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)][2:])


def test_conda_environments_have_the_pins_of_the_lock():
    for environment in ENVIRONMENTS:
        for name, pin in conda_pins(environment).items():
            assert LOCK[name] == pin, f"{environment}: {name}"


def test_other_requirements_do_not_contradict_the_lock():
    for file in ("requirements-bench.txt", "requirements-docs.txt"):
        for name, pin in pins(requirements(file)).items():
            assert pin.startswith("==") and LOCK.get(name, pin) == pin, f"{file}: {name}"


def test_snakemake_is_as_new_as_the_snakefile_asks_for():
    asked = re.search(r'min_version\("([\d.]+)"\)', (ROOT / "Snakefile").read_text())[1]
    assert Version(LOCK["snakemake"][2:]) >= Version(asked)
    (requirement,) = map(Requirement, PROJECT["optional-dependencies"]["workflow"])
    assert f">={asked}" in str(requirement.specifier).split(",")


def test_every_place_names_the_same_pythons():
    first, last = PYTHONS[0], PYTHONS[-1]
    beyond = f"3.{int(last.partition('.')[2]) + 1}"
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={first},<{beyond}")
    makefile = (ROOT / "Makefile").read_text()
    assert f"for version in {' '.join(reversed(PYTHONS))}; do" in makefile
    assert f"not ({first.replace('.', ', ')}) <= sys.version_info < ({beyond.replace('.', ', ')})" in makefile
    words = f"{', '.join(PYTHONS[:-1])} or {last}"
    assert f"Python {words} is needed" in makefile
    assert f"**Python {words}**" in " ".join((ROOT / "README.md").read_text().split())
    assert f"Python {first} (from {first}.0 on), {', '.join(PYTHONS[1:-1])} and {last}" in " ".join(
        (ROOT / "requirements.lock").read_text().split()
    )
    for environment in ENVIRONMENTS.values():
        assert environment["dependencies"][0] == f"python >={first},<{beyond}"
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["target-version"] == f"py{first.replace('.', '')}"
    dockerfile = (ROOT / "Dockerfile").read_text()
    (version,) = set(re.findall(r"python:?(3\.\d+)", dockerfile))
    assert version in PYTHONS


def test_every_job_of_ci_runs_the_python_that_it_sets_up():
    """A runner has other Pythons, too: without PYTHON, make would take the newest."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    for job in workflow["jobs"].values():
        (set_up,) = (step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
        assert {**workflow["env"], **job.get("env", {})}["PYTHON"] == f"python{set_up['python-version']}"
        for command in (step["run"] for step in job["steps"] if "run" in step):
            for target in re.findall(r"\bmake ([a-z-]+)", command):
                assert re.search(f"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_dockerfile_copies_what_set_up_reads_and_leaves_out_what_is_made():
    text = (ROOT / "Dockerfile").read_text()
    before = text[: text.index("RUN make setup")]
    for name in ("Makefile", "requirements.lock", "tools/setup.py"):
        assert name in before and (ROOT / name).exists()
    assert text.index("USER ") < text.index("RUN make setup") < text.index("COPY --chown=lab:lab . .")
    assert json.loads(text.strip().splitlines()[-1].removeprefix("CMD ")) == ["make", "demo"]
    made = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    left_out = set((ROOT / ".dockerignore").read_text().splitlines())
    assert made - {"*.pyc", "*.egg-info", "__pycache__"} <= left_out


# -- what code imports ------------------------------------------------------------------------------------------------


@cache
def needs(name):
    """Distributions that an installed one requires here, without extras."""
    try:
        asked = map(Requirement, importlib.metadata.requires(name) or [])
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {canonicalize_name(r.name) for r in asked if not r.marker or r.marker.evaluate({"extra": ""})}


PARTS = {"pydantic": {"pydantic-core", "annotated-types"}, "jinja2": {"markupsafe"}}
"""Distributions that are parts of others. What others need besides may change with their next version."""


DISTRIBUTIONS = importlib.metadata.packages_distributions()


def missing(imported, names):
    """Which of the modules imported no distribution provides."""
    named = {canonicalize_name(name) for name in names}
    ours = named.union(*(PARTS.get(name, ()) for name in named))
    others = {name for name in imported if name not in sys.stdlib_module_names} - {"dprobust", "_job", "snakemake"}
    return {name for name in others if not {canonicalize_name(n) for n in DISTRIBUTIONS.get(name, ())} & ours}


def test_the_package_depends_on_all_that_it_imports():
    imported = set()
    for path in (ROOT / "dprobust").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    assert len(imported - set(sys.stdlib_module_names)) > 15
    dependencies = [Requirement(text).name for text in PROJECT["dependencies"]]
    assert missing(imported, dependencies) == set()
    for left_out in dependencies:
        assert missing(imported, {*dependencies} - {left_out}), f"{left_out} is imported nowhere"


def by_name(script):
    """What a script imports by names that are in its specification."""
    registry = Registry()
    modules = [f"{package}.network" for package in registry.models.values()]
    modules = [module for module in modules if importlib.util.find_spec(module)] or list(registry.models.values())
    if script == "measure":
        return [f"{package}.measure:measure" for package in registry.metrics.values()] + modules
    if script == "show":
        return [f"{package}.show:show" for package in registry.displays.values()]
    if script == "get":
        return list(registry.materials.values())
    return modules if script in ("train", "train_together", "pretrain", "features") else []


def reached(script):
    """Modules that a job imports: those of the statements that run, and of the functions in reach."""
    reach = Reach({}, ())
    for root in (str(ROOT / "workflow" / "scripts" / f"{script}.py"), *by_name(script)):
        reach.add(root)
    targets = {target for module in reach._imported for target in module.scope.runs}
    for module, name in (done for done in reach._done if len(done) == 2):
        targets |= module.part(name).runs
    return {target.module.partition(".")[0] for target in targets}


RULES = sorted(
    pair
    for path in (ROOT / "workflow" / "rules").glob("*.smk")
    for pair in re.findall(r'envs/(\w+)\.yaml".*?scripts/(\w+)\.py"', path.read_text(), re.DOTALL)
)


def test_every_script_has_an_environment():
    scripts = {path.stem for path in (ROOT / "workflow" / "scripts").glob("*.py")}
    assert {script for _, script in RULES} == scripts - {"_job"}
    assert {environment for environment, _ in RULES} == set(ENVIRONMENTS)


@pytest.mark.parametrize(("environment", "script"), RULES, ids=[script for _, script in RULES])
def test_a_rules_environment_has_what_its_script_imports(environment, script):
    assert missing(reached(script), conda_pins(environment)) == set()


# -- the package alone ------------------------------------------------------------------------------------------------


def test_the_package_is_installed_alone(tmp_path):
    """A wheel is built and unpacked elsewhere: it has all modules and captions, and needs no Snakemake."""
    source, target = tmp_path / "source", tmp_path / "target"
    copytree(ROOT / "dprobust", source / "dprobust", ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    for command in (
        ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)],
        [
            "install",
            "--no-deps",
            "--target",
            str(target),
            str(tmp_path / f"dprobust-{PROJECT['version']}-py3-none-any.whl"),
        ],
    ):
        subprocess.run([*pip, *command], check=True, env=offline, capture_output=True, text=True)
    files = {path.relative_to(source) for path in (source / "dprobust").rglob("*") if path.suffix in (".py", ".rst")}
    assert len(files) > 200 and not [path for path in files if not (target / path).exists()]
    assert {path.name for path in target.iterdir()} == {"dprobust", f"dprobust-{PROJECT['version']}.dist-info"}
    code = """
import sys
for name in ("snakemake", "pytest"):
    sys.modules[name] = None  # an import of it fails
import torch
import dprobust
from dprobust.attacks import robust_accuracy
from dprobust.registry import Registry
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
robust_accuracy(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), eps=0.1, budget="fast")
assert Registry().metrics
print(dprobust.__path__[0])
"""
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(target / "dprobust"), done.stderr
