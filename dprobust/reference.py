"""The reference of the config, docs/configuration.md, from its JSON schema."""

import json
from typing import Any

from dprobust.schema import json_schema

HEAD = """# Configuration

Every key of a study, made from the typed settings by `make schema`. `config.yaml` is the paper's study; an overlay
(`--configfile mine.yaml`) is merged into it, mapping by mapping, lists as a whole.
"""
KINDS = {"figure": "figures", "table": "tables", "page": "pages"}
RELATIONS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def reference() -> str:
    """The page, as Markdown."""
    schema = json.loads(json_schema())
    kinds: dict[str, dict[str, Any]] = schema["$defs"]
    parts = [HEAD, _section("The study", schema, kinds)]
    parts += [
        _section("`datasets.NAME`", kinds["Dataset"], kinds),
        _section("`datasets.NAME.pretraining`", kinds["PretrainingOf"], kinds),
        _section("`datasets.NAME.pretraining.training`", kinds["Pretraining"], kinds),
        _section("`datasets.NAME.training.sgd`", kinds["Sgd"], kinds),
        _section("`datasets.NAME.training.dpsgd`", kinds["Dpsgd"], kinds),
        _section("`datasets.NAME.privacy`", kinds["Privacy"], kinds),
    ]
    for entry in schema["$defs"]["Dataset"]["properties"]["model"]["oneOf"]:
        model = kinds[_name(entry)]
        name = model["properties"]["name"].get("const", "module:factory")
        parts.append(_section(f"`datasets.NAME.model`: `{name}`", model, kinds))
    for name, entry in kinds["Metrics"]["properties"].items():
        parts.append(_section(f"`datasets.NAME.metrics.{name}`", kinds[_name(entry)], kinds))
    parts.append(_section("An entry of `runs`: a grid of runs", kinds["RunEntry"], kinds))
    parts.append(_section("An entry of `runs`: given weights", kinds["WeightsEntry"], kinds))
    for name, kind in kinds.items():
        section, _, shown = name.partition("_")
        if section in KINDS and shown:
            parts.append(_section(f"`{KINDS[section]}.NAME` with `shows: {shown}`", kind, kinds))
    return "\n".join(parts)


def _section(title: str, kind: dict[str, Any], kinds: dict[str, Any]) -> str:
    rows = _rows(kind, kinds)
    lines = [f"## {title}", "", _flat(kind.get("description", "")), ""]
    if rows:
        lines += ["| key | value | default | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _rows(kind: dict[str, Any], kinds: dict[str, Any], prefix: str = "") -> list[str]:
    rows = []
    for name, entry in kind.get("properties", {}).items():
        inner, below = kinds.get(_name(entry)), []
        if inner and name in ("budget", "normalize", "stop"):  # small, and found nowhere else
            below = _rows(inner, kinds, f"{prefix}{name}.")
            if not any("enum" in choice for choice in entry.get("anyOf", [])):  # else a name stands for the mapping
                rows += below
                continue
        default = entry.get("default", "" if name in kind.get("required", []) else None)
        told = "" if isinstance(default, dict) or default == "" else f"`{json.dumps(default, ensure_ascii=False)}`"
        told = "required" if name in kind.get("required", []) else told
        rows.append(f"| `{prefix}{name}` | {_values(entry, kinds)} | {told} | {_flat(entry.get('description', ''))} |")
        rows += below
    return rows


def _name(entry: dict[str, Any]) -> str:
    """Of what an entry refers to, also as one of two beside null."""
    choices = [entry, *entry.get("anyOf", [])]
    return next((c["$ref"].rpartition("/")[2] for c in choices if "$ref" in c), "")


def _values(entry: dict[str, Any], kinds: dict[str, Any]) -> str:
    """What a key may hold, in words."""
    if choices := entry.get("anyOf") or entry.get("oneOf"):
        return " or ".join(dict.fromkeys(_values(choice, kinds) for choice in choices))
    if "$ref" in entry:
        kind = kinds[_name(entry)]
        return " or ".join(f"`{value}`" for value in kind["enum"]) if "enum" in kind else "mapping"
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    if entry.get("type") == "array":
        return f"list of {_values(entry.get('items', {}), kinds)}"
    words = {"string": "text", "object": "mapping", "boolean": "true or false", "null": "null"}
    text = words.get(entry.get("type", ""), entry.get("type", "any"))
    bounds = [f"{word} {entry[key]}" for key, word in RELATIONS.items() if key in entry]
    return f"{text}, {' and '.join(bounds)}" if bounds else text


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
