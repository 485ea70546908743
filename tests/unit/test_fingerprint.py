"""Oracle: what an edit of code may and may not change, rule by rule. The real package: test_fingerprint_package.py."""

import ast
import itertools
import os

import pytest

from dprobust import fingerprint as fingerprints
from dprobust.errors import UserError
from dprobust.fingerprint import fingerprint, reached

MAIN = """
from pkg.other import helper


def root():
    return helper()
"""


class Tree:
    """A package `pkg` (and `ext`, and scripts) in a folder, whose files get new times with every edit."""

    def __init__(self, folder):
        self.folder = folder
        self.packages = {"pkg": folder / "pkg", "ext": folder / "ext"}
        self.clock = itertools.count(1)
        self.write("pkg/__init__.py", "")

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        time = next(self.clock)
        os.utime(path, (time, time))

    def edit(self, name, old, new):
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, (old, text)
        self.write(name, text.replace(old, new))

    def roots(self, roots):
        return [str(self.folder / root) if root.endswith(".py") else root for root in roots]

    def fingerprint(self, *roots):
        return fingerprint(*self.roots(roots), packages=self.packages)

    def reached(self, *roots):
        return reached(*self.roots(roots), packages=self.packages)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def case(name, files, edit, changes, root="pkg.main:root"):
    files = {"pkg/main.py": files} if isinstance(files, str) else files
    return pytest.param(files, edit, changes, root, id=name)


OTHER = "def helper():\n    return 1\n\n\ndef unrelated():\n    return 2\n"
LOCAL = "X = 1\nY = 2\n\n\ndef root():\n    return X\n"
TWO = {"pkg/main.py": MAIN, "pkg/other.py": OTHER}
A, B = ("pkg/main.py", "pkg/other.py")
HELPER, REST = (B, "return 1", "return 3"), (B, "return 2", "return 3")
X_IS = (A, "X = 1", "X = 3")


def main_with(body, head="", other=OTHER, **files):
    return {A: f"{head}\n\n\ndef root():\n    {body}\n", B: other} | {k.replace("__", "/"): v for k, v in files.items()}


CASES = [
    # Names of the module, and imports of every kind.
    case("own code", LOCAL, (A, "return X", "return -X"), True),
    case("a used name", LOCAL, X_IS, True),
    case("an unused name", LOCAL, (A, "Y = 2", "Y = 3"), False),
    case("through an import", TWO, HELPER, True),
    case("beside what is imported", TWO, REST, False),
    case("import renamed", main_with("return h()", "from pkg.other import helper as h"), HELPER, True),
    case("module", main_with("return other.helper()", "from pkg import other"), HELPER, True),
    case("module, the rest", main_with("return other.helper()", "from pkg import other"), REST, False),
    case("import as", main_with("return o.helper()", "import pkg.other as o"), HELPER, True),
    case("import as, the rest", main_with("return o.helper()", "import pkg.other as o"), REST, False),
    case("dotted", main_with("return pkg.other.helper()", "import pkg.other"), HELPER, True),
    case("dotted, the rest", main_with("return pkg.other.helper()", "import pkg.other"), REST, False),
    case("inside a function", main_with("from pkg.other import helper as h; return h()"), HELPER, True),
    case("inside, the rest", main_with("from pkg.other import helper as h; return h()"), REST, False),
    case("inside, a module", main_with("import pkg.other; return pkg.other.helper()"), HELPER, True),
    case("inside a class", main_with("return C", "class C:\n    from pkg.other import helper"), HELPER, True),
    case("in a nested function", main_with("from pkg import other; return lambda: other.helper()"), HELPER, True),
    case("relative", main_with("return helper()", "from .other import helper"), HELPER, True),
    case("relative module", main_with("return other.helper()", "from . import other"), HELPER, True),
    case(
        "relative, two levels",
        {"pkg/sub/__init__.py": "", "pkg/sub/main.py": MAIN.replace("pkg.other", "..other"), B: OTHER},
        HELPER,
        True,
        "pkg.sub.main:root",
    ),
    case(
        "re-exported",
        {A: MAIN.replace("pkg.other", "pkg"), B: OTHER, "pkg/__init__.py": "from pkg.other import helper, unrelated\n"},
        HELPER,
        True,
    ),
    case(
        "re-exported, the rest",
        {A: MAIN.replace("pkg.other", "pkg"), B: OTHER, "pkg/__init__.py": "from pkg.other import helper, unrelated\n"},
        REST,
        False,
    ),
    case(
        "transitive",
        {**TWO, B: "from pkg.third import t\n\n\ndef helper():\n    return t\n", "pkg/third.py": "t = 1\n"},
        ("pkg/third.py", "t = 1", "t = 2"),
        True,
    ),
    case("which foreign name", main_with("return f", "from math import sin as f"), (A, "sin", "cos"), True),
    case("foreign, not used", main_with("return 1", "from math import sin as f"), (A, "sin", "cos"), False),
    case(
        "which own name",
        main_with("return f, g", "from pkg.other import helper as f, unrelated as g"),
        (A, "helper as f, unrelated as g", "helper as g, unrelated as f"),
        True,
    ),
    case("another package", {"ext/__init__.py": "", "ext/main.py": MAIN, B: OTHER}, HELPER, True, "ext.main:root"),
    case("folder without __init__", {"ext/deep/main.py": MAIN, B: OTHER}, HELPER, True, "ext.deep.main:root"),
    case(
        "an import that turns",
        {A: "from pkg.other import f\n\n\ndef root():\n    return f\n", B: "from pkg.main import f\n"},
        (A, "return f", "return -f"),
        True,
    ),
    case(
        "a package's own module",
        {"pkg/__init__.py": "from pkg import other\n\n\ndef root():\n    return other.helper()\n", B: OTHER},
        HELPER,
        True,
        "pkg:root",
    ),
    case(
        "a package's own module, the rest",
        {"pkg/__init__.py": "from . import other\n\n\ndef root():\n    return other.helper()\n", B: OTHER},
        REST,
        False,
        "pkg:root",
    ),
    # Scopes.
    case("hidden by an argument", LOCAL.replace("root()", "root(X)"), X_IS, False),
    case("hidden by a local name", LOCAL.replace("return X", "X = 5\n    return X"), X_IS, False),
    case("hidden by a loop", LOCAL.replace("return X", "return [X for X in range(3)]"), X_IS, False),
    case("iterated over", LOCAL.replace("return X", "return [X for X in X]"), X_IS, True),
    case("hidden by :=", LOCAL.replace("return X", "[X := i for i in range(3)]\n    return X"), X_IS, False),
    case("hidden by except", LOCAL.replace("return X", "try: 1\n    except ValueError as X: return X"), X_IS, False),
    case("hidden by match", LOCAL.replace("return X", "match 1:\n        case X: return X"), X_IS, False),
    case("hidden by a function around", LOCAL.replace("return X", "X = 5\n    return lambda: X"), X_IS, False),
    case("in a function inside", LOCAL.replace("return X", "def f():\n        return X\n    return f"), X_IS, True),
    case("hidden by its argument only", LOCAL.replace("return X", "f = lambda X: X\n    return X"), X_IS, True),
    case(
        "hidden by nonlocal",
        LOCAL.replace("return X", "X = 0\n    def f():\n        nonlocal X\n        X = 3"),
        X_IS,
        False,
    ),
    case("in a default", LOCAL.replace("root()", "root(x=X)").replace("return X", "return x"), X_IS, True),
    case(
        "in a default of a keyword", LOCAL.replace("root()", "root(*, x=X)").replace("return X", "return x"), X_IS, True
    ),
    case("which argument has the default", "def root(a, *, b=1, c):\n    pass\n", (A, "b=1, c", "b, c=1"), True),
    case("kinds of arguments", "def root(a, b):\n    pass\n", (A, "a, b", "a, *, b"), True),
    case(
        "class scope does not hide",
        "X = 1\n\n\nclass root:\n    X = 2\n\n    def f(self):\n        return X\n",
        X_IS,
        True,
    ),
    case("{**a} is not {None: a}", "def root(a):\n    return {**a}\n", (A, "**a", "None: a"), True),
    case(
        "set global",
        "X = 1\n\n\ndef put():\n    global X\n    X = 2\n\n\ndef root():\n    return X\n",
        (A, "X = 2", "X = 3"),
        True,
    ),
    case(
        "set global only",
        "def put():\n    global X\n    X = 2\n\n\ndef root():\n    return X\n",
        (A, "X = 2", "X = 3"),
        True,
    ),
    case("sets a global", "X = 1\n\n\ndef root():\n    global X\n    X = 2\n", X_IS, True),
    case("hidden by a function inside", LOCAL.replace("return X", "def X(): pass\n    return X"), X_IS, False),
    case(
        "nonlocal import",
        main_with("from pkg import other\n\n    def f():\n        nonlocal other\n        other = other.helper()"),
        HELPER,
        True,
    ),
    case(
        "global in a function inside",
        LOCAL.replace("return X", "X = 5\n    def f():\n        global X\n        X += 1"),
        X_IS,
        True,
    ),
    case("class attribute of that name", "X = 1\n\n\nclass root:\n    X = 2\n", X_IS, False),
    case("inside, not used", main_with("from pkg.other import helper; return 1"), HELPER, False),
    case(
        "said otherwise",
        main_with("return o.helper()", "import pkg.other as o"),
        (A, "import pkg.other as o", "from pkg import other as o"),
        False,
    ),
    # Assignments.
    case("tuple", LOCAL.replace("X = 1\nY = 2", "X, Y = 1, 2"), (A, "1, 2", "1, 3"), True),
    case("twice", LOCAL.replace("Y = 2", "X = X + 2"), (A, "X + 2", "X + 3"), True),
    case("in an if", LOCAL.replace("Y = 2", "if Y:\n    X = 2"), (A, "X = 2", "X = 3"), True),
    case(
        "in a try",
        LOCAL.replace("Y = 2", "try:\n    import fast as X\nexcept ImportError:\n    X = 2"),
        (A, "X = 2", "X = 3"),
        True,
    ),
    case("annotated", LOCAL.replace("X = 1", "X: int = 1"), (A, "= 1", "= 3"), True),
    case(
        "function in an if",
        LOCAL.replace("X = 1", "if Y:\n\n    def X():\n        return 1"),
        (A, "return 1", "return 3"),
        True,
    ),
    case(
        "dict of functions",
        main_with("return TABLE", "from pkg.other import helper\nTABLE = {'a': helper}"),
        HELPER,
        True,
    ),
    case("not the dict", main_with("return 1", "from pkg.other import helper\nTABLE = {'a': helper}"), HELPER, False),
    # Classes.
    case("method", "class root:\n    def f(self):\n        return 1\n", (A, "return 1", "return 2"), True),
    case(
        "base",
        "class Base:\n    def f(self):\n        return 1\n\n\nclass root(Base):\n    pass\n",
        (A, "return 1", "return 2"),
        True,
    ),
    case("decorator", "def d(f):\n    return f\n\n\n@d\ndef root():\n    pass\n", (A, "return f", "return None"), True),
    case("decorator's place", "@d\ndef root():\n    pass\n", (A, "@d\n", "@e\n"), True),
    case(
        "decorator of a class",
        "def d(f):\n    return f\n\n\n@d\nclass root:\n    pass\n",
        (A, "return f", "return None"),
        True,
    ),
    case(
        "metaclass", "class M(type):\n    x = 1\n\n\nclass root(metaclass=M):\n    pass\n", (A, "x = 1", "x = 2"), True
    ),
    case("attribute of a class", "class C:\n    x = 1\n\n\ndef root():\n    return C.x\n", (A, "x = 1", "x = 2"), True),
    case("method's use", LOCAL.replace("def root():\n", "class root:\n  def f(self):\n"), X_IS, True),
    # What does not count, and what does.
    case("docstring", "def root():\n    '''A.'''\n    return 1\n", (A, "A.", "B."), False),
    case("no docstring", "def root():\n    '''A.'''\n    return 1\n", (A, "    '''A.'''\n", ""), False),
    case("only a docstring", "def root():\n    '''A.'''\n", (A, "'''A.'''", "pass"), False),
    case("docstring of the module", f"'''A.'''\n{LOCAL}", (A, "A.", "B."), False),
    case("docstring of a class", "class root:\n    '''A.'''\n\n    x: int = 1\n", (A, "A.", "B."), False),
    case("docstring of a field", "class root:\n    x: int = 1\n    '''A.'''\n", (A, "    '''A.'''\n", ""), False),
    case("docstring of a name", LOCAL.replace("Y =", "'''A.'''\nY ="), (A, "A.", "B."), False),
    case("text that is returned", "def root():\n    return 'A'\n", (A, "'A'", "'B'"), True),
    case("comment", LOCAL, (A, "return X", "return X  # why"), False),
    case("layout", LOCAL, (A, "return X", "return (\n        X\n    )"), False),
    case("lines", LOCAL, (A, "\n\n\n", "\n\n\n\n\n"), False),
    case(
        "order",
        LOCAL,
        (A, "X = 1\nY = 2\n\n\ndef root():\n    return X\n", "def root():\n    return X\nY = 2\nX = 1\n"),
        False,
    ),
    case("order of assignments", LOCAL.replace("Y = 2", "X = 2"), (A, "X = 1\nX = 2", "X = 2\nX = 1"), True),
    case("annotation", "def root(x: int) -> int:\n    return x\n", (A, "x: int", "x: float"), False),
    case("annotation added", "def root(x) -> int:\n    return x\n", (A, "(x)", "(x: int)"), False),
    case("annotation of the result", "def root(x: int) -> int:\n    return x\n", (A, "-> int", "-> str"), False),
    case("annotation of a local name", "def root():\n    x: int = 1\n    return x\n", (A, "x: int", "x"), False),
    case("annotation of a global name", LOCAL.replace("X = 1", "X: int = 1"), (A, "X: int", "X: str"), False),
    case("only annotated", "def root():\n    x: int\n    return 1\n", (A, "x: int", "x: str"), False),
    case("annotation of an attribute", "def root(x):\n    x.y: int = 1\n", (A, ": int", ""), False),
    case("annotation in a class", "class root:\n    x: int = 1\n", (A, "x: int", "x: float"), True),
    case(
        "annotation in a class in a function",
        "def root():\n    class C:\n        x: int = 1\n",
        (A, "x: int", "x: float"),
        True,
    ),
    case(
        "annotation in a method",
        "class root:\n    def f(self, x: int):\n        y: int = 1\n",
        (A, "y: int", "y: str"),
        False,
    ),
    case(
        "named in a class's annotation", "class T:\n    y = 1\n\n\nclass root:\n    x: T\n", (A, "y = 1", "y = 2"), True
    ),
    case(
        "named there as text", "class T:\n    y = 1\n\n\nclass root:\n    x: 'list[T]'\n", (A, "y = 1", "y = 2"), True
    ),
    case("a Literal is no name", "T = 1\n\n\nclass root:\n    x: Literal['T']\n", (A, "T = 1", "T = 2"), False),
    case(
        "named in a function's annotation",
        "class T:\n    y = 1\n\n\ndef root(x: T) -> T:\n    z: T = x\n    return z\n",
        (A, "y = 1", "y = 2"),
        False,
    ),
    case(
        "TYPE_CHECKING",
        main_with(
            "return helper", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.other import helper"
        ),
        HELPER,
        False,
    ),
    case(
        "TYPE_CHECKING itself",
        "if TYPE_CHECKING:\n    import a\n\n\ndef root():\n    pass\n",
        (A, "import a", "import b"),
        False,
    ),
    case(
        "else of TYPE_CHECKING",
        LOCAL.replace("X = 1", "if typing.TYPE_CHECKING:\n    X = 3\nelse:\n    X = 1"),
        (A, "X = 1", "X = 2"),
        True,
    ),
    case(
        "else in a function",
        "def root():\n    if TYPE_CHECKING:\n        x = 1\n    else:\n        x = 2\n",
        (A, "x = 2", "x = 3"),
        True,
    ),
    case("only annotated, removed", "def root():\n    x: int\n    return 1\n", (A, "    x: int\n", ""), False),
    case("only annotated global name", "X: int\n\n\ndef root():\n    return X\n", (A, "X: int", "X: str"), False),
    case(
        "TYPE_CHECKING in a function",
        "def root():\n    if TYPE_CHECKING:\n        x = 1\n",
        (A, "x = 1", "x = 3"),
        False,
    ),
    case(
        "text inside an annotation",
        "class T:\n    y = 1\n\n\nclass root:\n    x: tuple[1, list['T']]\n",
        (A, "y = 1", "y = 2"),
        True,
    ),
    case(
        "text that an annotation calls with",
        "T = 1\n\n\nclass root:\n    x: Annotated[int, Field(alias='T')]\n",
        (A, "T = 1", "T = 2"),
        False,
    ),
    *(
        case(f"{old} is not {new}", f"def root(a, b, c):\n    {old}\n", (A, f"    {old}", f"    {new}"), True)
        for old, new in (
            ("return a + b", "return a - b"),
            ("return a.b", "return a.c"),
            ("return a.b", "return a['b']"),
            ("return a().b", "return a().c"),
            ("return a(b, c)", "return a(bc)"),
            ("@a\n    def f(): pass", "def fa(): pass"),
            ("return a", "return 'a'"),
            ("return 1", "return 1.0"),
            ("return 1", "return True"),
            ("return a(b(), c)", "return a(b(c))"),
            ("return [[a], b]", "return [[a, b]]"),
            ("return a, b", "return [a, b]"),
            ("return [a, b]", "return [a + b]"),
            ("return 'ab', 'c'", "return 'a', 'bc'"),
            ("return None", "yield None"),
            ("lambda a: b", "lambda b: a"),
            ("lambda: (a, b)", "(lambda: a), b"),
            ("lambda a, b: c", "lambda a=b: c"),
            ("lambda *a: c", "lambda **a: c"),
            ("return a(b=c)", "return a(c=b)"),
            ("return a[b:]", "return a[:b]"),
            ("return a and b or c", "return a and (b or c)"),
            ("return [a for a in b]", "return (a for a in b)"),
            ("return [a for a in b if c]", "return [a for a in b]"),
            ("for a in b: c()", "for a in b: pass\n    c()"),
            ("def f(): a()\n    b()", "def f():\n        a()\n        b()"),
            ("def f(): pass", "def g(): pass"),
            ("def f(a): a", "def f(*, a): a"),
            ("def f(): pass", "async def f(): pass"),
            ("class C: pass", "class D: pass"),
            ("a, b = c", "a = b = c"),
            ("f'{a}'", "f'{a!r}'"),
            ("from a import b", "from a import c as b"),
            ("@a\n    def f(): pass", "def f(): a"),
            ("if a: b()", "while a: b()"),
            ("match a:\n        case True: pass", "match a:\n        case None: pass"),
        )
    ),
    # Statements that run on import.
    *(
        case(f"statement: {text}", f"X = []\nY = {{}}\n{text}\n\n\ndef root():\n    pass\n", (A, "1", "2"), True)
        for text in (
            "register(1)",
            "if Y:\n    call(1)",
            "for i in X:\n    i.f(1)",
            "with X:\n    f(1)",
            "X += [1]",
            "X.y = 1",
            "Y['a'] = 1",
            "try:\n    f(1)\nfinally:\n    pass",
            "del Y[1]",
            "assert X != 1",
            "_ = register(1)",
            "X.y: int = 1",
            "while X:\n    f(1)",
            "X.y += 1",
            "a, X.y = 1, 3",
        )
    ),
    case(
        "what statements use",
        "def f():\n    return 1\n\n\nregister(f)\n\n\ndef root():\n    pass\n",
        (A, "return 1", "return 2"),
        True,
    ),
    case("what += uses", "X = 1\nX += 2\n\n\ndef root():\n    pass\n", X_IS, True),
    case("order of statements", "f(1)\nf(2)\n\n\ndef root():\n    pass\n", (A, "f(1)\nf(2)", "f(2)\nf(1)"), True),
    case(
        "statement of a module in reach", {**TWO, B: f"register(1)\n{OTHER}"}, (B, "register(1)", "register(3)"), True
    ),
    case(
        "statement of a module imported",
        main_with("return 1", "import pkg.other", f"register(1)\n{OTHER}"),
        (B, "register(1)", "register(3)"),
        True,
    ),
    case(
        "statement of one imported inside",
        main_with("from pkg import other", "", f"register(1)\n{OTHER}"),
        (B, "register(1)", "register(3)"),
        True,
    ),
    case(
        "statement of one not imported",
        main_with("return 1", "", f"register(1)\n{OTHER}"),
        (B, "register(1)", "register(3)"),
        False,
    ),
    case("statement of the package", {**TWO, "pkg/__init__.py": "register(1)\n"}, ("pkg/__init__.py", "1", "2"), True),
    case("assignment of the package", {**TWO, "pkg/__init__.py": "X = 1\n"}, ("pkg/__init__.py", "1", "2"), False),
    case(
        "statement of the package around",
        {
            **main_with("return f", "from pkg.sub.leaf import f"),
            "pkg/sub/__init__.py": "register(1)\n",
            "pkg/sub/leaf.py": "f = 1\n",
        },
        ("pkg/sub/__init__.py", "1", "2"),
        True,
    ),
    case(
        "main only", {**TWO, B: f"{OTHER}if __name__ == '__main__':\n    call(5)\n"}, (B, "call(5)", "call(6)"), False
    ),
    # Modules as objects.
    case("module passed", main_with("return f(other)", "from pkg import other"), REST, True),
    case("module by getattr", main_with("return getattr(o, name)", "import pkg.other as o"), REST, True),
    case("module assigned", main_with("return alias.unrelated", "from pkg import other\nalias = other"), REST, True),
    case("module passed, inside", main_with("import pkg.other as o; return vars(o)"), REST, True),
    case(
        "module passed, re-exports",
        {**main_with("return f(third)", "from pkg import third"), "pkg/third.py": "from pkg.other import helper\n"},
        HELPER,
        True,
    ),
    case("attribute made at run time", main_with("return other.made", "from pkg import other"), REST, True),
    case(
        "__getattr__",
        main_with("return other.made", "from pkg import other", f"{OTHER}\n\ndef __getattr__(name):\n    return 7\n"),
        (B, "return 7", "return 8"),
        True,
    ),
    case(
        "module passed with __getattr__",
        main_with("return f(other)", "from pkg import other", f"{OTHER}\n\ndef __getattr__(name):\n    return 7\n"),
        REST,
        True,
    ),
    case("__name__ of a module", main_with("return other.__name__", "from pkg import other"), REST, False),
    case("__dict__ of a module", main_with("return other.__dict__", "from pkg import other"), REST, True),
    case("globals()", LOCAL.replace("return X", "return globals()[a]"), (A, "Y = 2", "Y = 3"), True),
    case("a method named eval", LOCAL.replace("return X", "return X.eval()"), (A, "Y = 2", "Y = 3"), False),
    case("star", main_with("return helper()", "from pkg.other import *"), HELPER, True),
    case("star, whole", main_with("return helper()", "from pkg.other import *"), REST, True),
    case(
        "__getattr__, the rest",
        main_with("return other.made", "from pkg import other", f"{OTHER}\n\ndef __getattr__(name):\n    return 7\n"),
        REST,
        False,
    ),
    case(
        "module passed, not what it imports whole",
        {**main_with("return f(third)", "from pkg import third"), "pkg/third.py": "from pkg import other\n"},
        REST,
        False,
    ),
    case(
        "module in a folder without __init__",
        {**main_with("return leaf.helper()", "from ext.deep import leaf"), "ext/deep/leaf.py": OTHER},
        ("ext/deep/leaf.py", "return 1", "return 3"),
        True,
    ),
    case("after a comprehension", LOCAL.replace("return X", "[X for X in range(3)]\n    return X"), X_IS, True),
    case(
        "not main",
        {**TWO, B: f"{OTHER}if __name__ == '__main__':\n    call(5)\nelse:\n    call(6)\n"},
        (B, "call(6)", "call(7)"),
        True,
    ),
    # Roots.
    case("whole module", LOCAL, (A, "Y = 2", "Y = 3"), True, "pkg.main"),
    case("whole module, not its imports", {A: "from pkg.other import helper\n", B: OTHER}, HELPER, False, "pkg.main"),
    case("assigned name", LOCAL, X_IS, True, "pkg.main:X"),
    case("only that name", LOCAL, (A, "Y = 2", "Y = 3"), False, "pkg.main:X"),
    case("a re-export", {A: "from pkg.other import helper\n", B: OTHER}, HELPER, True, "pkg.main:helper"),
    case(
        "script",
        {"s/run.py": "from pkg.other import helper\nwith job():\n    helper()\n", B: OTHER},
        HELPER,
        True,
        "s/run.py",
    ),
    case(
        "script, the rest",
        {"s/run.py": "from pkg.other import helper\nwith job():\n    helper()\n", B: OTHER},
        REST,
        False,
        "s/run.py",
    ),
    case(
        "script, import in a block",
        {"s/run.py": "with job():\n    from pkg import other\n    other.helper()\n", B: OTHER},
        HELPER,
        True,
        "s/run.py",
    ),
    case("script, its names", {"s/run.py": "X = 1\n"}, ("s/run.py", "1", "2"), True, "s/run.py"),
    case(
        "script, main", {"s/run.py": "if __name__ == '__main__':\n    f(1)\n"}, ("s/run.py", "1", "2"), True, "s/run.py"
    ),
    case(
        "script's helper",
        {"s/run.py": "from _job import job\njob()\n", "s/_job.py": "def job():\n    return 1\n"},
        ("s/_job.py", "1", "2"),
        True,
        "s/run.py",
    ),
    case(
        "script's helper, the rest",
        {
            "s/run.py": "from _job import job\njob()\n",
            "s/_job.py": "def job():\n    return 0\n\n\ndef other():\n    return 1\n",
        },
        ("s/_job.py", "1", "2"),
        False,
        "s/run.py",
    ),
    case(
        "helper's import",
        {"s/run.py": "from _job import job\njob()\n", "s/_job.py": "from pkg.other import helper as job\n", B: OTHER},
        HELPER,
        True,
        "s/run.py",
    ),
    case(
        "a package sees no helper",
        {A: "from _job import job\n\n\ndef root():\n    job()\n", "pkg/_job.py": "def job():\n    return 1\n"},
        ("pkg/_job.py", "1", "2"),
        False,
    ),
]


@pytest.mark.parametrize(("files", "edit", "changes", "root"), CASES)
def test_what_counts(tree, files, edit, changes, root):
    for name, text in files.items():
        ast.parse(text)
        tree.write(name, text)
    before = tree.fingerprint(root)
    assert len(before) == 16 and int(before, 16) >= 0
    tree.edit(*edit)
    assert (tree.fingerprint(root) != before) == changes, tree.reached(root)
    tree.write(edit[0], files[edit[0]])
    assert tree.fingerprint(root) == before


def test_reached_names_what_is_reached(tree):
    tree.write(
        A, "from pkg import other\nX: int = 1\nY = 2\ncall(Y)\n\n\ndef root(y: Y):\n    return X + other.helper()\n"
    )
    tree.write(B, OTHER)
    tree.write("s/run.py", "from pkg.main import X\n\nprint(X)\n")
    expected = ["pkg.main:<statements>", "pkg.main:X", "pkg.main:Y", "pkg.main:root", "pkg.other:helper"]
    assert tree.reached("s/run.py") == ["pkg.main:<statements>", "pkg.main:X", "pkg.main:Y", "run.py:<statements>"]
    assert tree.reached("pkg.main:root") == expected
    assert tree.reached("pkg.other:unrelated", "pkg.main:root") == [*expected, "pkg.other:unrelated"]


def test_a_name_and_its_module_count(tree):
    for name in ("pkg/a.py", "pkg/b.py"):
        tree.write(name, "def f():\n    return 1\n\n\ndef g():\n    return 1\n")
    assert len({tree.fingerprint(f"pkg.{m}:{n}") for m in "ab" for n in "fg"}) == 4


def test_neither_place_nor_order_of_roots_counts(tree, tmp_path):
    found = []
    for folder in ("one", "another"):
        other = Tree(tmp_path / folder)
        other.write(A, MAIN)
        other.write(B, OTHER)
        other.write("s/run.py", "import pkg.main\n\npkg.main.root()\n")
        found += [other.fingerprint("s/run.py", "pkg.other"), other.fingerprint("pkg.other", "s/run.py")]
    assert len(set(found)) == 1


def test_scripts_of_the_same_name_both_count(tree):
    for folder in "ab":
        tree.write(f"{folder}/run.py", f"print('{folder}')\n")
    both = tree.fingerprint("a/run.py", "b/run.py")
    assert both not in (tree.fingerprint("a/run.py"), tree.fingerprint("b/run.py"))


def test_a_file_that_comes_or_goes_is_seen(tree):
    tree.write(A, MAIN)
    before = tree.fingerprint("pkg.main:root")
    tree.write(B, OTHER)
    assert tree.fingerprint("pkg.main:root") != before
    (tree.folder / B).unlink()
    assert tree.fingerprint("pkg.main:root") == before


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("pkg.nonsense", "there is no module 'pkg.nonsense' in dprobust, pkg, ext"),
        ("main:root", "there is no module 'main' in dprobust, pkg, ext"),
        ("", "there is no module '' in dprobust, pkg, ext"),
        ("torch:nn", "there is no module 'torch' in dprobust, pkg, ext"),
        ("pkg.main:nonsense", "pkg.main has no 'nonsense'"),
        ("s/nonsense.py", "there is no script .*nonsense.py"),
    ],
)
def test_what_is_missing_is_named(tree, root, message):
    tree.write(A, LOCAL)
    with pytest.raises(ValueError, match=f"^{message}$"):
        tree.fingerprint("pkg.main:root", root)


@pytest.mark.parametrize(("text", "found"), [("def f(:\n", r":1: not Python \(invalid syntax"), ("\0", "not Python")])
def test_a_file_that_is_not_python_is_named(tree, text, found):
    tree.write(A, MAIN)
    tree.write(B, text)
    with pytest.raises(UserError, match=found) as error:
        tree.fingerprint("pkg.main:root")
    assert str(tree.folder / B) in str(error.value) and "\n" not in str(error.value)


def test_a_file_is_parsed_once(tree, monkeypatch):
    tree.write(A, MAIN)
    tree.write(B, OTHER)
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(
        ast, "parse", lambda source, *more, **named: parsed.append(source) or parse(source, *more, **named)
    )
    for _ in range(2):
        for root in ("pkg.main:root", "pkg.other:helper", "pkg.other:unrelated", "pkg.main"):
            tree.fingerprint(root)
    assert sorted(parsed) == sorted([b"", MAIN.encode(), OTHER.encode()])
    tree.edit(*HELPER)
    tree.fingerprint("pkg.main:root")
    assert len(parsed) == 4


def test_modules_that_are_left_out_are_not_followed():
    root = "dprobust.materials.mnist_c.make:make"
    whole, part = reached(root), reached(root, without=["dprobust.sources"])
    assert any(name.startswith("dprobust.sources.download:") for name in whole)
    assert not any(name.startswith("dprobust.sources") for name in part)
    assert set(part) < set(whole) and fingerprint(root) != fingerprint(root, without=["dprobust.sources"])


def test_what_is_known_is_not_followed_again(tree, monkeypatch):
    tree.write(A, MAIN)
    tree.write(B, OTHER)
    known = tree.fingerprint("pkg.main:root")
    monkeypatch.setattr(fingerprints, "Reach", None)
    assert tree.fingerprint("pkg.main:root") == known
    tree.edit(*HELPER)
    with pytest.raises(TypeError):
        tree.fingerprint("pkg.main:root")
