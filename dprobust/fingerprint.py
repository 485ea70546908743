"""Code as an input: a hash of the definitions that a stage reaches, so that an edit reruns what it can change, no more.

From a root every name that its code uses is followed to the definition that it stands for, through the modules of the
package and its extensions. Nothing is imported and nothing is run: this reads syntax trees.

What counts of a definition is its code and what the imported names in it stand for. Docstrings, comments, layout, the
order of definitions and annotations outside class bodies do not. A class is taken whole, since nobody can tell which
methods are called on its instances. Statements that run when a module is imported count once anything imports it.

What cannot be seen must be named as a root: modules that are imported by a text made at run time, and the class of an
argument that nothing in reach makes (an annotation does not count). A decorator that registers its function counts
when the function is reached, not before.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from dprobust.definitions import STATEMENTS, Chain, Import, Module
from dprobust.errors import UserError

PACKAGE = Path(__file__).parent
DYNAMIC = {"globals", "eval", "exec"}
"""Built-in functions that can reach anything in the module that calls them."""

Signature = tuple[int, int] | None
"""Time and size of a file; None if there is none."""


def fingerprint(*roots: str, packages: Mapping[str, Path] = MappingProxyType({}), without: Collection[str] = ()) -> str:
    """16 hexadecimal digits for all that the roots reach.

    Args:
        roots: "module" (all that it defines) or "module:name" (a function, class or assigned name), the module by its
            full name (``dprobust.training:train``); or the path of a script (all, and what it imports from its folder).
        packages: name -> folder of packages to follow besides this one.
        without: modules, those in them included, that are not followed: what they give does not depend on their code.

    Raises:
        ValueError: there is no such module, name or script.
        UserError: a file is not Python.
    """
    return _memoised(roots, packages, tuple(without))[0]


def reached(
    *roots: str, packages: Mapping[str, Path] = MappingProxyType({}), without: Collection[str] = ()
) -> list[str]:
    """All that the roots reach, as "module:name", sorted; of scripts "script.py:name". Arguments as in `fingerprint`.

    The statements that run when a module is imported are listed as "module:<statements>".
    """
    return list(_memoised(roots, packages, tuple(without))[1])


class Reach:
    """All that roots reach.

    Attributes:
        files: each file that was looked for -> its signature.
        parts: (label of the module, name) -> texts; more than one only for scripts of the same name.
    """

    def __init__(self, packages: Mapping[str, Path], without: Collection[str]) -> None:
        self.packages = {PACKAGE.name: PACKAGE, **packages}
        self.without = without
        self.files: dict[Path, Signature] = {}
        self.parts: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._modules: dict[tuple[str, Path | None], Module | None] = {}
        self._imported: set[Module] = set()
        self._done: set[tuple] = set()
        self._entered: dict[tuple, bool] = {}
        self._todo: list[tuple[Module, str]] = []

    def add(self, root: str) -> None:
        """Reach a root and all that it reaches."""
        name, _, definition = root.partition(":")
        if root.endswith(".py"):
            path = Path(root).absolute()
            if self._signature(path) is None:
                raise ValueError(f"there is no script {root}")
            self._define(self._parse(path, path.stem, False, path.parent, script=True))
        elif (module := self.module(name)) is None:
            raise ValueError(f"there is no module {name!r} in {', '.join(self.packages)}")
        elif not definition:
            self._define(module)
        elif not self._follow(module, (definition,)):
            raise ValueError(f"{name} has no {definition!r}")
        while self._todo:
            self._read(*self._todo.pop())

    def module(self, name: str, beside: Path | None = None) -> Module | None:
        """A module by its full name; None for one that is in none of the packages, nor beside a script."""
        if any(name == left_out or name.startswith(f"{left_out}.") for left_out in self.without):
            return None
        top, *rest = name.split(".")
        beside = None if top in self.packages else beside
        if (name, beside) not in self._modules:
            self._modules[name, beside] = self._find(name, self.packages.get(top), beside, rest)
        return self._modules[name, beside]

    def _find(self, name: str, folder: Path | None, beside: Path | None, rest: list[str]) -> Module | None:
        if folder is None and beside is None or not name:
            return None
        base = Path(folder or beside / name.partition(".")[0], *rest)
        if self._signature(base / "__init__.py"):
            return self._parse(base / "__init__.py", name, True, beside)
        path = base.with_name(f"{base.name}.py")
        if self._signature(path):
            return self._parse(path, name, False, beside)
        # A folder needs no __init__.py to be a package.
        return Module(name, b"", True, beside, False) if base.is_dir() else None

    def _signature(self, path: Path) -> Signature:
        if path not in self.files:
            self.files[path] = _signature(path)
        return self.files[path]

    def _parse(self, path: Path, name: str, package: bool, beside: Path | None, script: bool = False) -> Module:
        key, signature = (path, name, script), self._signature(path)
        if _PARSED.get(key, (None,))[0] != signature:
            try:
                _PARSED[key] = signature, Module(name, path.read_bytes(), package, beside, script)
            except (SyntaxError, ValueError) as error:
                place = f"{path}:{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else path
                raise UserError(f"{place}: not Python ({getattr(error, 'msg', error)}); correct it") from None
        return _PARSED[key][1]

    def _read(self, module: Module, name: str) -> None:
        part = module.part(name)
        used = {use.chain[0] for use in part.uses if not use.origin}
        meant = sorted(f"{n}={target}" for n in used for target in module.scope.imports.get(n, ()))
        if part.text:
            self.parts[module.label, name].add("\n".join([part.text, *meant]))
        for chain, origin in part.uses:
            if origin:
                self._enter(module, origin, chain)
            elif not self._follow(module, chain) and chain[0] in DYNAMIC:
                self._take(module)
        for target in part.runs:
            self._run(module, target)
        for setter in module.setters.get(name, ()):
            self._reach(module, setter)

    def _reach(self, module: Module, name: str) -> None:
        if (module, name) not in self._done:
            self._done.add((module, name))
            self._todo.append((module, name))

    def _import(self, module: Module) -> None:
        """Statements that run when a module is imported, those of the packages around it and of what it imports."""
        if module in self._imported:
            return
        self._imported.add(module)
        self._reach(module, STATEMENTS)
        if parent := self.module(module.name.rpartition(".")[0], module.beside):
            self._import(parent)
        for target in module.scope.runs:
            self._run(module, target)
        for star in module.scope.stars:
            if source := self.module(star, module.beside):
                self._take(source)

    def _run(self, module: Module, target: Import) -> None:
        """What an import statement runs."""
        if source := self.module(target.module, module.beside):
            self._import(source)
            if source.package and target.name and (submodule := self.module(str(target), module.beside)):
                self._import(submodule)

    def _follow(self, module: Module, chain: Chain, deep: bool = True) -> bool:
        """Reach what a name of a module stands for; False if the module binds no such name."""
        self._import(module)
        name, found = chain[0], chain[0] in module.scope.names
        if name in module.definitions or name in module.setters:
            self._reach(module, name)
            found = True
        for target in module.scope.imports.get(name, ()):
            found |= self._enter(module, target, chain[1:], deep)
        return found

    def _enter(self, module: Module, target: Import, chain: Chain, deep: bool = True) -> bool:
        """Reach attributes of what an import of a module has bound. Not `deep`: a module itself is just imported.

        False if that is what is being looked for: a package may import its own module, ``from pkg import module``.
        """
        step = (module, target, chain, deep)
        source = self.module(target.module, module.beside)
        if source is None or step in self._entered:
            return self._entered.get(step, True)
        self._entered[step] = False
        chain = (target.name, *chain) if target.name else chain
        while chain:
            if self._follow(source, chain, deep):
                self._entered[step] = True
                return True
            submodule = self.module(f"{source.name}.{chain[0]}", source.beside) if source.package else None
            if submodule is None:
                break
            source, chain = submodule, chain[1:]
        # What is left is a module itself, as an object, or an attribute that its code does not show.
        if chain and "__getattr__" in source.definitions:
            self._reach(source, "__getattr__")
        elif deep and not (chain and chain[0].startswith("__") and chain[0] != "__dict__"):
            self._take(source)
        self._entered[step] = True
        return True

    def _define(self, module: Module) -> None:
        """Reach all that a module defines."""
        self._import(module)
        for name in module.definitions:
            self._reach(module, name)

    def _take(self, module: Module) -> None:
        """Reach all that can be had from a module: its definitions, and those that it imports from others."""
        if (module,) not in self._done:
            self._done.add((module,))
            self._define(module)
            for target in (target for targets in module.scope.imports.values() for target in targets):
                self._enter(module, target, (), deep=False)


_PARSED: dict[tuple[Path, str, bool], tuple[Signature, Module]] = {}
_KNOWN: dict[tuple, tuple[str, list[str], dict[Path, Signature]]] = {}


def _memoised(roots: tuple[str, ...], packages: Mapping[str, Path], without: tuple[str, ...]) -> tuple[str, list[str]]:
    key = (Path.cwd(), roots, without, *sorted((name, str(path)) for name, path in packages.items()))
    known = _KNOWN.get(key)
    if not known or any(_signature(path) != signature for path, signature in known[2].items()):
        reach = Reach(packages, without)
        for root in roots:
            reach.add(root)
        digest = hashlib.sha256()
        for (module, name), texts in sorted(reach.parts.items()):
            for text in sorted(texts):
                digest.update(f"{module}:{name}\n{text}\n".encode())
        names = [f"{module}:{name}" for module, name in sorted(reach.parts)]
        known = _KNOWN[key] = digest.hexdigest()[:16], names, reach.files
    return known[:2]


def _signature(path: Path) -> Signature:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size
