"""What a user asks of the workflow, checked before any work: targets, processors, profile, config files."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dprobust.errors import UserError


def check_targets(targets: Iterable[str], rules: Mapping[str, str | None], makes: Callable[[str], bool]) -> None:
    """Refuse a target that is neither a rule nor a file that there is or that a rule makes.

    Args:
        targets: as on the command line.
        rules: name of a rule -> pattern of its files where it makes many, one a job, so that its name asks for none.
        makes: whether a rule makes the file of a path.

    Raises:
        UserError: names the target and what comes near.
    """
    names = sorted(name for name, pattern in rules.items() if not pattern)
    for target in targets:
        if pattern := rules.get(target):
            everything = [name for name in ("models", "figures", "tables", "pages") if name in names]
            raise UserError(
                f"target {target!r}: its files are many, {pattern}; ask for one of them by its path, or for what needs "
                f"them, such as {', '.join(everything)}"
            )
        if target in names or makes(target) or Path(target).exists():
            continue
        near = difflib.get_close_matches(target, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise UserError(f"target {target!r}: neither a rule nor a file that a rule makes; {hint}")


def check_place(folder: Path) -> None:
    """Refuse a clone whose path has braces: Snakemake takes what is between them for a wildcard.

    Raises:
        UserError: names the path.
    """
    if "{" in str(folder) or "}" in str(folder):
        raise UserError(f"{folder}: a brace in the path is a wildcard to Snakemake; move this folder to one without")


def check_cores(cores: int | None) -> None:
    """Refuse fewer than one processor: Snakemake would wait for one forever.

    Raises:
        UserError: names the option.
    """
    if cores is not None and cores < 1:
        raise UserError(f"--cores: found {cores}, must be at least 1; leave it out to use all processors")


def check_profile(arguments: Sequence[str]) -> None:
    """Refuse a workflow profile that is not there: Snakemake would go on without any.

    Raises:
        UserError: names the folder.
    """
    option = "--workflow-profile"
    for i, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            given = argument.partition("=")[2]
        elif argument == option and i + 1 < len(arguments):
            given = arguments[i + 1]
        else:
            continue
        folder = Path(given)
        files = [folder / "profile.yaml", folder / "config.yaml", *folder.glob("config.v*+.yaml")]
        if given != "none" and not (folder.is_file() or any(file.is_file() for file in files)):
            raise UserError(f"{option} {given}: no profile.yaml there; name a folder that has one")


class _OnceEach(yaml.SafeLoader):
    """YAML in which a key stands once in a mapping; YAML's own rule, which its loaders do not keep."""


def _mapping(loader: _OnceEach, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if (key.tag, key.value) in seen:
                mark = key.start_mark
                raise UserError(f"{mark.name}, line {mark.line + 1}: {key.value!r} stands there twice; remove one")
            seen.add((key.tag, key.value))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node)


_OnceEach.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def check_config_file(path: Path) -> None:
    """Refuse a config file that cannot be read, is no mapping, or has a key twice.

    Raises:
        UserError: names file and, where there is one, the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; all that follows --configfile is taken for config files") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: found a byte that is not UTF-8; save the file as UTF-8") from None
    try:
        loader = _OnceEach(text)
        loader.name = str(path)
        found = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        tab = "; use spaces, not tabs" if "\\t" in str(error.problem) else "; mend the line"
        raise UserError(f"{path}{line}: not YAML: {error.problem}{tab}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}; write it as text") from None
    if not isinstance(found, dict):
        shown = "nothing" if found is None else f"a {type(found).__name__}"
        raise UserError(f"{path}: found {shown}, expected keys with values (key: value)")
