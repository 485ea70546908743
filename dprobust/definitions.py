"""Python modules as definitions: what each is made of, and which names it uses. Nothing is imported and nothing is run.

What counts of a definition is its code. Docstrings, comments, layout and annotations outside class bodies do not.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

STATEMENTS = "<statements>"
"""Name of the statements that run on import."""

Chain = tuple[str, ...]
"""A name and attributes of it: ``models.build`` is ("models", "build")."""


class Import(NamedTuple):
    """What an import binds: a module, or a name in it (which may be a submodule)."""

    module: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


class Use(NamedTuple):
    """A use of a name of the module; with an origin, of what a local import has bound."""

    chain: Chain
    origin: Import | None = None


@dataclass
class Part:
    """A definition, read: its code as text, the names it uses, the modules it imports."""

    text: str = ""
    uses: set[Use] = field(default_factory=set)
    runs: set[Import] = field(default_factory=set)


@dataclass
class Scope:
    """What statements bind, nested functions and classes left out."""

    names: set[str] = field(default_factory=set)
    imports: dict[str, list[Import]] = field(default_factory=lambda: defaultdict(list))
    stars: list[str] = field(default_factory=list)
    runs: set[Import] = field(default_factory=set)
    outer: set[str] = field(default_factory=set)
    """Names declared `global`."""


class Module:
    """A parsed module. Its definitions are read when they are asked for.

    Attributes:
        name: full name.
        label: what it is called in fingerprints: the name, or the file's name of a script.
        beside: folder of a script or of a helper beside it, where imports look first; None for modules of packages.
        definitions: name -> the statements that define it.
        scope: imports, and the names bound by `effects`.
        effects: statements that run on import, but for definitions, imports and texts.
        setters: name -> definitions that declare it `global`.
    """

    def __init__(self, name: str, source: bytes, package: bool, beside: Path | None, script: bool) -> None:
        self.name, self.package, self.beside, self.script = name, package, beside, script
        self.label = f"{name}.py" if beside else name
        self.definitions: dict[str, list[ast.stmt]] = defaultdict(list)
        self.effects: list[ast.stmt] = []
        self.scope = Scope()
        self.setters: dict[str, set[str]] = defaultdict(set)
        self._parts: dict[str, Part] = {}
        self._sort(ast.parse(source).body)
        if b"global" in source:
            for definition, statements in self.definitions.items():
                for node in (node for statement in statements for node in ast.walk(statement)):
                    for declared in node.names if isinstance(node, ast.Global) else ():
                        self.setters[declared].add(definition)

    def _sort(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.definitions[statement.name].append(statement)
            elif _main_only(statement) and not self.script:
                self._sort(statement.orelse)
            elif _defines(statement):
                for name in sorted(bindings([statement], self).names):
                    self.definitions[name].append(statement)
            else:
                bindings([statement], self, self.scope)
                if not (_idle(statement) or isinstance(statement, ast.Import | ast.ImportFrom)):
                    self.effects.append(statement)

    def part(self, name: str) -> Part:
        """A definition, or with `STATEMENTS` the effects, read."""
        if name not in self._parts:
            statements = self.effects if name == STATEMENTS else self.definitions.get(name, [])
            self._parts[name] = Reader(self).read(statements)
        return self._parts[name]

    def targets(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import, Import]]:
        """Name bound, what it stands for, and what runs, of each name that an import binds ("*" for a star)."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = Import(alias.name if alias.asname else alias.name.partition(".")[0])
                yield alias.asname or bound.module, bound, Import(alias.name)
            return
        base = node.module or ""
        if node.level:
            folders = self.name.split(".")[: None if self.package else -1]
            base = ".".join([*folders[: len(folders) + 1 - node.level], *filter(None, [node.module])])
        for alias in node.names:
            target = Import(base, alias.name)
            yield alias.asname or alias.name, target, target


def bindings(statements: Iterable[ast.AST], module: Module, scope: Scope | None = None) -> Scope:
    """What statements bind in the scope that they stand in."""
    scope, nonlocals, todo = scope or Scope(), set(), list(statements)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, target, runs in module.targets(node):
                if name == "*":
                    scope.stars.append(target.module)
                else:
                    scope.imports[name].append(target)
                    scope.runs.add(runs)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope.names.add(node.name)
        elif isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                scope.names.add(node.id)
        elif isinstance(node, ast.Global):
            scope.outer.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            nonlocals.update(node.names)
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            scope.names.update(n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
        elif _typing_only(node):
            todo += node.orelse
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                scope.names.add(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                scope.names.add(node.rest)
            todo += ast.iter_child_nodes(node)
    scope.names -= nonlocals
    return scope


class Reader:
    """Writes the code of statements as text, without what does not count, and notes what they use."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.out: list[str] = []
        self.part = Part()
        self.scopes: list[Scope] = []
        self.in_class = False

    def read(self, statements: Iterable[ast.stmt]) -> Part:
        for statement in statements:
            self.visit(statement)
        self.part.text = "".join(self.out)
        return self.part

    def visit(self, node: ast.AST) -> None:
        getattr(self, f"visit_{type(node).__name__}", self.plain)(node)

    def plain(self, node: ast.AST) -> None:
        """A node by its fields. Fields left empty are not written: some are new in later Pythons."""
        self.out.append(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if value is None or value == [] or name in ("ctx", "kind", "type_comment"):
                continue
            self.out.append(f"{name}=")
            for item in value if isinstance(value, list) else [value]:
                before = len(self.out)
                self.visit(item) if isinstance(item, ast.AST) else self.out.append(repr(item))
                self.out.append("," if len(self.out) > before else "")
        self.out.append(")")

    def use(self, chain: Chain) -> None:
        for scope in reversed(self.scopes):
            if chain[0] in scope.outer:
                break
            if chain[0] in scope.imports:
                self.part.uses.update(Use(chain[1:], origin) for origin in scope.imports[chain[0]])
                return
            if chain[0] in scope.names:
                return
        self.part.uses.add(Use(chain))

    def inside(self, scope: Scope, nodes: Iterable[ast.AST]) -> None:
        """Visit nodes in a scope of their own."""
        in_class, self.in_class = self.in_class, False
        self.scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self.scopes.pop()
        self.in_class = in_class

    def visit_Constant(self, node: ast.Constant) -> None:
        self.out.append(f"Constant({_written(node.value)})")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        # Python 3.12 ends a format specification such as :{width} with an empty text, other versions do not.
        self.plain(ast.JoinedStr([value for value in node.values if getattr(value, "value", None) != ""]))

    def visit_Name(self, node: ast.Name) -> None:
        self.out.append(node.id)
        if not isinstance(node.ctx, ast.Store) or any(node.id in scope.outer for scope in self.scopes):
            self.use((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if chain := _chain(node):
            self.out.append(".".join(chain))
            self.use(chain)
        else:
            self.plain(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.use((node.target.id,))
        self.plain(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if self.in_class:
            self.plain(node)
            for text in _quoted(node.annotation):
                self.visit(text)
        elif node.value:
            self.plain(ast.Assign(targets=[node.target], value=node.value))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.out.append(f"{type(node).__name__}({getattr(node, 'name', '')}")
        for decorator in getattr(node, "decorator_list", ()):
            self.out.append("@")
            self.visit(decorator)
        a = node.args
        for kind in (a.posonlyargs, a.args, [a.vararg], a.kwonlyargs, [a.kwarg]):
            self.out.append(f"|{','.join(arg.arg for arg in kind if arg)}")
        for default in (*a.defaults, None, *a.kw_defaults):
            self.out.append("=")
            if default:
                self.visit(default)
        body = node.body if isinstance(node.body, list) else [node.body]
        scope = bindings(body, self.module)
        scope.names |= {n.arg for n in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if n}
        self.out.append(":")
        self.inside(scope, body)
        self.out.append(")")

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        # The names of a class body are not hidden from the module's: a name may be read before it is bound there.
        in_class, self.in_class = self.in_class, True
        self.plain(node)
        self.in_class = in_class

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)  # outside: in [x for x in x] the last is not the others
        names = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        self.scopes.append(Scope(names=names))
        self.plain(node)
        self.scopes.pop()

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for _, target, runs in self.module.targets(node):
            self.part.runs.add(runs)
            if self.in_class:  # it becomes an attribute
                self.part.uses.add(Use((), target))
        self.plain(node)

    visit_ImportFrom = visit_Import

    def visit_If(self, node: ast.If) -> None:
        if _typing_only(node):
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.plain(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not _idle(node):
            self.plain(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        pass


def _chain(node: ast.expr) -> Chain | None:
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else None


def _written(value: object) -> str:
    """A constant as text, the same in every Python: each version knows more characters that it takes for printable.

    Escaped are those beyond the old alphabets and beyond the signs of mathematics.
    """
    text = repr(value)
    if text.isascii():
        return text
    return "".join(c if c < "\u0530" or "\u2000" <= c < "\u2c00" else ascii(c)[1:-1] for c in text)


def _idle(node: ast.AST) -> bool:
    """Whether a statement does nothing: a docstring (also of an attribute), ``...``."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _defines(node: ast.stmt) -> bool:
    """Whether a statement does no more than to give names values; ``_`` is the name of what is thrown away."""
    if isinstance(node, ast.Assign):
        parts = [part for target in node.targets for part in ast.walk(target)]
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        return names != {"_"} and not any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts)
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name)
    return type(node).__name__ == "TypeAlias"  # since Python 3.12


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and (_chain(node.test) or ("",))[-1] == "TYPE_CHECKING"


def _main_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _quoted(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that an annotation has as text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            yield ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return
    literal = isinstance(node, ast.Subscript) and (_chain(node.value) or ("",))[-1] == "Literal"
    if not literal and not isinstance(node, ast.Call):
        for child in ast.iter_child_nodes(node):
            yield from _quoted(child)
