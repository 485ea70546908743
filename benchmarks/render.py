"""results.json -> results.md, a pure function."""

from collections.abc import Iterator, Mapping

from benchmarks.harness import Row, Spread, Table, Target

HEAD = """# Measured speed

Made by `make bench` from results.json; [README.md](README.md) says how to read it. A number is the median, in brackets
the quartiles; a ratio is the median of the ratios within each round."""


def markdown(results: Mapping) -> str:
    """The page of all parts in `results`: part -> about (mapping) and tables (as of `dataclasses.asdict`)."""
    parts = {name: [_table(table) for table in part["tables"]] for name, part in sorted(results.items())}
    lines = [HEAD, "", "## Targets", "", "| part | target | measured | bound | holds |", "|---|---|--:|--:|---|"]
    for name, tables in parts.items():
        lines += [f"| {name} | {_target(target)} |" for table in tables for target in table.targets]
    for name, tables in parts.items():
        lines += ["", f"## {name}", "", *_about(results[name]["about"])]
        for table in tables:
            lines += ["", f"### {table.title}", "", *_lines(table)]
    return "\n".join(lines) + "\n"


def _about(about: Mapping) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items()))
    yield f"{about['date']}, {about['seconds']:.0f} s, commit {about['commit']}."
    yield f"{about['cpu']}, {about['cores']} cores, load before {about['load']:.1f}; {about['system']}; {versions}."


def _lines(table: Table) -> Iterator[str]:
    if table.rows:
        compared = f" × {table.reference} |" if table.reference else ""
        yield f"| | {table.unit} |{compared} {table.counted} |"
        yield "|---|--:|" + ("--:|" if table.reference else "") + "--:|"
        for row in table.rows:
            middle = f" {_spread(row.ratio)} |" if table.reference else ""
            yield f"| {row.name} | {_spread(row.value)} |{middle} {row.count} |"
    for i, note in enumerate(table.notes):
        yield from ["", note] if table.rows or i else [note]


def _target(target: Target) -> str:
    sign = "≤" if target.at_most else "≥"
    unit = f" {target.unit}" if target.unit else ""
    return f"{target.what} | {_spread(target.value)}{unit} | {sign} {_number(target.bound)}{unit} | {target.verdict()}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)}–{_number(spread.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(data: Mapping) -> Table:
    rows = [
        Row(row["name"], Spread(**row["value"]), row["count"], row["ratio"] and Spread(**row["ratio"]))
        for row in data["rows"]
    ]
    targets = [Target(**{**target, "value": Spread(**target["value"])}) for target in data["targets"]]
    return Table(**{**data, "rows": rows, "targets": targets})
