"""Fingerprints are the same under every Python that is supported: what one has made is up to date for another.

CI runs this under each of them.
"""

import ast

from dprobust.fingerprint import fingerprint

SAMPLE = r'''"""Nodes whose trees could differ between versions."""

from __future__ import annotations

import contextlib as c
from typing import TypeVar

T = TypeVar("T")
width, x, d = 10, 1.5, {"k": 1}
texts = [
    f"{x}", f"{x!r:>{width}}", f"{x:}", f"{x=}", f"{ x = !r:^20}", f"{x:{width}.{width}f}", f"{d['k']}{{}}",
    "a" f"{x}" "b" "c" f"{x}{x}" "", f"" f"{x}", f"\N{EM DASH}{x}\n", rf"\d{x}\{width}",
    f"""{
        x
    } and {f'{x}' f'{width:{x}}'}""",
    b"\x00a" b"b", "\U0001FAE8 \u6f22\u5b57 \u03c3 \u2264 \u2ffc \u0cf3", f"\U0001FAE8{x}", f"{x:\u2ffc>9}",
    f"{(lambda v: v)(x)}", f"{x if x else width:%Y-%m}", f"{x,}", f"{'a' 'b'}", f"{x!s}", f"{x:{'>'}{width}}",
]
numbers = 1e400, -0.0, 1_000j, 0xFF, ..., True, None, 1e-320, 10**30, 0.1 + 0.2


@c.contextmanager
def f(a, /, b: int = 1, *args: int, k, m=(yes := 2), **rest) -> T:
    """Docstring.

        Indented.
    """
    global counter
    counter = [y for z in args if (y := z) for _ in range(3)]
    try:
        match a:
            case {"x": [1, *others], **more} | [{"x": others, "y": more}]:
                yield others, more
            case str() as s if s:
                yield from s
            case c.suppress(args=1) | -1 | 1 + 2j | None:
                pass
            case _:
                ...
    except* ValueError as group:
        raise RuntimeError(f"{group}") from group
    else:
        (first, *middle), last = args
    finally:
        del a
    with (c.suppress(), c.suppress() as s, c.suppress()):
        assert (lambda *p, q=1, **r: p)(*args, **rest), f"{k!a}"
    return first, middle, last


async def g(xs):
    async with xs as y, y:
        return [await z async for z in y] + [*{**{"a": 1}}]


class A(dict, metaclass=type, **{}):
    """Attributes."""

    field: int | None = None
    other: "list[T]"
    __slots__ = ("a",)

    def method(self):
        nonlocal_ = 1

        def inner():
            nonlocal nonlocal_
            nonlocal_ += x[1:2, ..., ::3]
            return nonlocal_

        return inner


if x > 1 and not width < 2 <= 3 or x @ x:
    x **= 2
'''


def digits(folder, text):
    folder.mkdir()
    (folder / "__init__.py").write_text(text, encoding="utf-8")
    return fingerprint("sample", packages={"sample": folder})


def test_the_same_digits_in_every_version(tmp_path):
    assert digits(tmp_path / "sample", SAMPLE) == "ed77e03ef7e3bd63"


def test_an_empty_text_that_one_version_sees_in_an_f_string_does_not_count(tmp_path, monkeypatch):
    """Python 3.12 does, after the {width} of a format specification."""
    plain, parse, added = digits(tmp_path / "plain", SAMPLE), ast.parse, []

    def as_312(*arguments, **options):
        tree = parse(*arguments, **options)
        for node in ast.walk(tree):
            if isinstance(node, ast.FormattedValue) and node.format_spec:
                node.format_spec.values.append(ast.Constant(""))
                added.append(node)
        return tree

    monkeypatch.setattr(ast, "parse", as_312)
    assert digits(tmp_path / "other", SAMPLE) == plain and len(added) > 3
