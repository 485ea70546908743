"""How the workflow was called: config and targets of the command line, checked before anything is done."""

import re
import sys
from argparse import Namespace
from collections.abc import Collection
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from snakemake.cli import get_argument_parser, parse_args, parse_config

from dprobust import asked
from dprobust.errors import UserError


def check_config() -> None:
    """End with one line where a file of ``--configfile`` or an entry of ``--config`` cannot be read.

    Snakemake reads them before the Snakefile: profiles call this, which it reads first of all.
    """
    called = get_argument_parser().parse_known_args()[0]
    try:
        for file in called.configfile or []:
            asked.check_config_file(Path(file))
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    try:
        parse_config(called.config)
    except Exception as error:  # of any kind: each entry is tried as Python, as YAML, and as text
        raise SystemExit(f"error: --config: {' '.join(str(error).split())}") from None


def command_line() -> Namespace | None:
    """What was asked for where the Snakefile is run by the command `snakemake`, else None. Snakemake has read the
    command line by now, but tells workflows of it only after their Snakefile: it is read again."""
    command = Path(sys.argv[0])
    if command.name != "snakemake" and command.parts[-2:] != ("snakemake", "__main__.py"):
        return None
    with redirect_stderr(StringIO()):
        return parse_args(sys.argv[1:])[1]


def check_targets(workflow: Any, targets: Collection[str]) -> None:
    """Refuse targets that nothing makes, with what comes near.

    Raises:
        UserError: names the target.
    """
    rules = {rule.name: _pattern(rule) for rule in workflow.rules}
    asked.check_targets(targets, rules, lambda path: any(rule.is_producer(path) for rule in workflow.rules))


def _pattern(rule: Any) -> str | None:
    """Of a rule with wildcards the first of its files, without the wildcards' constraints."""
    return re.sub(r"{(\w+),[^}]*}", r"{\1}", str(rule.output[0])) if rule.has_wildcards() else None
