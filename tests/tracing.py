"""What a call really calls: the oracle of fingerprints."""

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType

from dprobust.fingerprint import PACKAGE


def called(function: Callable, *arguments) -> set[str]:
    """The definitions of the package that a call really calls, as in `reached`; those that imports call left out."""
    codes: set[CodeType] = set()

    def note(frame, event, _):
        code = frame.f_code
        if event != "call" or code in codes or not code.co_filename.startswith(str(PACKAGE)):
            return
        caller = frame
        while caller:
            if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(str(PACKAGE)):
                return
            caller = caller.f_back
        codes.add(code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return {definition(code) for code in codes}


def definition(code: CodeType) -> str:
    """The definition that code belongs to, by its line."""
    path = Path(code.co_filename)
    module = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for statement in tree(path).body:
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
        if first <= code.co_firstlineno <= statement.end_lineno:
            return f"{module}:{(defined(statement) or ['<statements>'])[0]}"
    raise AssertionError(f"{code} is nowhere in {path}")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    names = [n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)]
    return names if isinstance(statement, ast.Assign | ast.AnnAssign) else []
