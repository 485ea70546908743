"""Fingerprints of this package. Oracles: what is really called, as a profiler sees it; the names that Python's own
compiler finds in every function; an edit of each definition in turn."""

import ast
import dis
import importlib
import inspect
import pkgutil
import runpy
import shutil
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest
from tracing import called, defined, tree

import dprobust
from dprobust.fingerprint import PACKAGE, fingerprint, reached

NET = """
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 13 * 13, 10))
x, y = torch.rand(64, 1, 28, 28), torch.randint(10, (64,))
"""

CALLS = {
    "fgsm": (NET + "from dprobust.attacks import fgsm\nfgsm(net, x, y, 0.1)", {"dprobust.attacks.gradient_sign:fgsm"}),
    "attacks": (
        NET + "from dprobust import attacks, seeds\n"
        "attacks.fgsm_curve(net, x, y, [0.0, 0.1], 'margin')\n"
        "attacks.pgd(net, x, y, 0.1, 0.02, 3, random_start=True, generator=seeds.generator(1))\n"
        "attacks.pgd_iterations(net, x, y, 0.1, 0.02, 3, 'ce_stable')",
        {"dprobust.attacks.losses:_margin", "dprobust.attacks.losses:LOSSES", "dprobust.seeds:derive"},
    ),
    "ladder": (
        NET + "from dprobust.attacks import Budget, ladder\n"
        "few = Budget(pgd_steps=2, pgd_restarts=2, classes=2, apgd_steps=5, square_queries=5)\n"
        "for norm in ('linf', 'l2'):\n"
        "    ladder(net, x, y, 0.001, norm, budget=few)",
        {"dprobust.attacks.rungs:ladder", "dprobust.attacks.autopgd:climb", "dprobust.attacks.squares:search"},
    ),
    "bounds": (
        "import torch\nfrom torch import nn\nfrom dprobust.bounds import certified\ntorch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))\n"
        "x = torch.rand(2, 1, 5, 5)\n"
        "net = nn.Sequential(*net, nn.ReLU(), nn.Linear(3, 3))\n"
        "certified(net, x, net(x).argmax(1), 0.1)",  # of an image that is wrong nothing is asked
        {"dprobust.bounds.backward:Image", "dprobust.bounds.planes:slopes", "dprobust.bounds.chain:chain"},
    ),
    "distances": (
        NET
        + "import dprobust.distances as d\nd.boundary_distance(net, x, y, 'l2')\nd.deepfool(net, x[:4], y[:4], 'linf')",
        {"dprobust.inference:logit_differences"},
    ),
    "curvature": (
        NET + "import dprobust.curvature\n"
        "dprobust.curvature.curvature_profile(net, x[:4], y[:4], 9)\n"
        "dprobust.curvature.finite_difference_curvature(net, x[:4], y[:4], [0.5])",
        {"dprobust.curvature:curvature_profile"},
    ),
    **{
        engine: (
            NET + f"from dprobust.engines import {cls} as engine\nengine(net)(x, y, 1.0)",
            {f"dprobust.engines:{cls}", "dprobust.engines:_check"},
        )
        for engine, cls in (
            ("fused", "FusedEngine"),
            ("bfloat16", "Bfloat16Engine"),
            ("ghost", "GhostEngine"),
            ("hooks", "HooksEngine"),
            ("functional", "FunctionalEngine"),
        )
    },
    "runs": (
        "from pydantic import TypeAdapter\n"
        "from dprobust.recipe import Dpsgd, Sgd\n"
        "from dprobust.runs import Entry, expand\n"
        "entries = TypeAdapter(list[Entry]).validate_python(['sgd', {'sigma': [1.0, 1.3], 'clip': 1.0}])\n"
        "for run in expand(entries, {'sgd': Sgd(), 'dpsgd': Dpsgd()}, {'name': 'lenet'}, 1e-6):\n"
        "    run.label(1.0), run.training.lr_at(0, 5), run.training.mechanism(60000), hash(run)",
        {"dprobust.runs:Run", "dprobust.recipe:Training", "dprobust.runs:_kind", "dprobust.settings:_unique"},
    ),
    "corruptions": (
        "import numpy as np\n"
        "from dprobust.corruptions import NAMES, corrupt\n"
        "images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)\n"
        "for name in NAMES:\n"
        "    try:\n"
        "        corrupt(images, name, 0)\n"
        "    except ValueError:\n"
        "        pass",
        {"dprobust.corruptions:corrupt", "dprobust.corruptions.noise:shot_noise"},
    ),
    "training": (
        NET + "from dprobust import arrays, training\n"
        "from dprobust.recipe import Training\n"
        "data = arrays.Split((x * 255).byte().numpy(), y.numpy())\n"
        "for more in ({}, {'sigma': 1.0, 'clip': 1.0}, {'augment': ['flip', 'crop'], 'sampling': 'poisson'}):\n"
        "    training.train(net, data, data, Training(epochs=1, batch_size=32, **more), (0, 'run'))",
        {"dprobust.training:train", "dprobust.recipe:Training", "dprobust.fused:clipped_sum"},
    ),
}
"""What -> a script that does it on little data, and some of what it is known to call."""


@pytest.mark.parametrize("what", CALLS)
def test_all_that_is_called_is_reached(tmp_path, what):
    text, known = CALLS[what]
    script = tmp_path / "call.py"
    script.write_text(text)
    seen = called(runpy.run_path, str(script))
    assert {name for name in known if not name.endswith("LOSSES")} <= seen
    assert seen <= set(reached(str(script)))
    assert known <= set(reached(str(script)))


def modules() -> list[ModuleType]:
    names = [found.name for found in pkgutil.walk_packages(dprobust.__path__, "dprobust.")]
    return [importlib.import_module(name) for name in names]


def codes(thing) -> list[CodeType]:
    """The code of a function, or of all methods of a class, with all that is nested in it."""
    if inspect.isclass(thing):
        members = [getattr(m, "__func__", getattr(m, "fget", m)) for m in vars(thing).values()]
        todo = [m.__code__ for m in map(inspect.unwrap, members) if isinstance(m, FunctionType)]
    else:
        todo = [inspect.unwrap(thing).__code__]
    todo = [code for code in todo if code.co_filename.startswith(str(PACKAGE))]
    for code in todo:
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return todo


@cache
def annotations(path: Path) -> set[tuple[int, int]]:
    """Line and column of the names in annotations of functions: code evaluates those of nested functions."""
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    noted = [arg.annotation for f in functions for arg in ast.walk(f.args) if isinstance(arg, ast.arg)]
    noted += [function.returns for function in functions]
    return {(n.lineno, n.col_offset) for note in noted if note for n in ast.walk(note) if isinstance(n, ast.Name)}


def loaded(module: ModuleType, code: CodeType) -> set[str]:
    """Definitions of the package that code loads by their global names, also as attributes of modules."""
    found, instructions = set(), list(dis.get_instructions(code))
    for one, following in zip(instructions, [*instructions[1:], None], strict=True):
        if one.opname not in ("LOAD_GLOBAL", "LOAD_NAME") or one.argval not in vars(module):
            continue
        if (one.positions.lineno, one.positions.col_offset) in annotations(Path(code.co_filename)):
            continue
        owner, name, value = module, one.argval, getattr(module, one.argval)
        if isinstance(value, ModuleType):
            if not value.__name__.startswith("dprobust") or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                continue
            owner, name, value = value, following.argval, getattr(value, following.argval)
        if getattr(value, "__module__", "").startswith("dprobust") and hasattr(value, "__qualname__"):
            found.add(f"{value.__module__}:{value.__qualname__.split('.')[0]}")
        elif any(name in defined(statement) for statement in tree(Path(owner.__file__)).body):
            found.add(f"{owner.__name__}:{name}")
    return {name for name in found if not name.endswith(">")}


def test_all_names_that_the_compiler_finds_are_reached():
    edges = 0
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", "") != module.__name__ or not hasattr(thing, "__qualname__"):
                continue
            if thing.__qualname__ != name or not (inspect.isclass(thing) or isinstance(thing, FunctionType)):
                continue
            expected = {found for code in codes(thing) for found in loaded(module, code)}
            missing = expected - set(reached(f"{module.__name__}:{name}"))
            assert not missing, f"{module.__name__}:{name} does not reach {missing}"
            edges += len(expected)
    assert edges > 300


EDITED = (
    "dprobust.attacks.gradient_sign",
    "dprobust.attacks.losses",
    "dprobust.attacks.autopgd",
    "dprobust.inference",
    "dprobust.layers",
    "dprobust.clipping",
    "dprobust.engines",
    "dprobust.fused",
    "dprobust.probing",
    "dprobust.seeds",
)


@pytest.mark.parametrize("root", ["dprobust.attacks:fgsm_curve", "dprobust.engines:FunctionalEngine"])
def test_an_edit_counts_where_it_is_reached(tmp_path, root):
    copy = tmp_path / "dprobust"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    packages = {"dprobust": copy}
    before, names, counts = fingerprint(root, packages=packages), set(reached(root)), [0, 0]
    assert before == fingerprint(root), "the place of the package counts"
    for module in EDITED:
        path = copy.joinpath(*module.split(".")[1:]).with_suffix(".py")
        source = path.read_text()
        for i, statement in enumerate(ast.parse(source).body):
            if not defined(statement):
                continue
            edited = ast.parse(source)
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                edited.body[i].body.append(ast.parse("edited = 1").body[0])
            else:
                edited.body[i].value = ast.List([statement.value], ast.Load())
            path.write_text(ast.unparse(ast.fix_missing_locations(edited)))
            reaches = any(f"{module}:{name}" in names for name in defined(statement))
            assert (fingerprint(root, packages=packages) != before) == reaches, f"{module}: {defined(statement)}"
            counts[reaches] += 1
        path.write_text(ast.unparse(ast.parse(source)) + "\n\n# without comments, in another layout")
        assert fingerprint(root, packages=packages) == before
        path.write_text(source)
    assert min(counts) > 5


def test_training_depends_on_nothing_that_gets_data_or_measures():
    parts = {name.partition(":")[0] for name in reached("dprobust.training:train")}
    assert "dprobust.fused" in parts
    assert not parts & {"dprobust.download", "dprobust.archives", "dprobust.unpickling"}
    apart = ("dprobust.sources", "dprobust.metrics", "dprobust.plots", "dprobust.attacks")
    assert not [part for part in parts if part.startswith(apart)]


def test_one_attack_does_not_depend_on_another():
    assert "dprobust.attacks.gradient_sign:fgsm_curve" in reached("dprobust.attacks:fgsm_curve")
    assert "dprobust.attacks.gradient_sign:pgd_iterations" not in reached("dprobust.attacks:fgsm_curve")
    assert "dprobust.attacks.gradient_sign:fgsm" not in reached("dprobust.attacks:pgd_iterations")
    strong = {"autopgd", "squares", "rungs", "search"}
    assert not [name for name in reached("dprobust.attacks:pgd_record") if name.split(":")[0].split(".")[-1] in strong]
    assert "dprobust.attacks.squares:search" in reached("dprobust.attacks:ladder")
