"""Code as an input: a hash of the package's modules that a stage runs, so that an edit reruns what it can change.

Comments, docstrings and layout do not count. Imports within the package are followed; nothing is imported.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def fingerprint(*modules: str) -> str:
    """16 hexadecimal digits for the named modules of the package and every module of it that they import.

    Args:
        modules: names inside the package, for example ``"training"``.
    """
    digest = hashlib.sha256()
    for path in closure(*modules):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n{_parse(path)[0]}\n".encode())
    return digest.hexdigest()[:16]


def closure(*modules: str) -> list[Path]:
    """The files of the named modules of the package and of every module of it that they import, sorted."""
    todo = [_path(*module.split(".")) for module in modules]
    if None in todo:
        raise ValueError(f"{PACKAGE.name} has no module {modules[todo.index(None)]!r}")
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += _parse(path)[1]
    return sorted(seen)


@cache
def _parse(path: Path) -> tuple[str, list[Path]]:
    """The syntax tree of a module as text, without docstrings, and the modules of the package that it imports."""
    tree = ast.parse(path.read_bytes())
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A text that stands by itself is a docstring (also of an attribute): it does nothing.
            node.body = [
                item for item in node.body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ]
        elif isinstance(node, ast.Import):
            imports += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imports += [[*node.module.split("."), alias.name] for alias in node.names]
    # Importing a.b.c runs a and a.b first; the last part may be a function in a module, then there is no such file.
    parts = [name[1:end] for name in imports if name[0] == PACKAGE.name for end in range(1, len(name) + 1)]
    return ast.dump(tree), [path for path in (_path(*part) for part in parts) if path]


def _path(*parts: str) -> Path | None:
    """The file of a module of the package; None if there is no such module."""
    base = PACKAGE.joinpath(*parts)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
