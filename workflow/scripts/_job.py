"""What every job's script has in common: its log, its threads, errors of one line, and seals of what it makes."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dprobust import seals
from dprobust.errors import UserError
from dprobust.extensions import importable


@contextmanager
def job(snakemake: Any) -> Iterator[SimpleNamespace]:
    """Run a script's body: messages and tracebacks go to the job's log, threads are as the rule says.

    What a user can mend (a `UserError`, a full disk, a missing file) ends the job with one line; anything else is a
    defect and keeps its traceback.

    Yields:
        spec, what defines the result (`dprobust.plan`); inputs and outputs, name -> path or list of paths; about,
        the wildcards.
    """
    with Path(snakemake.log[0]).open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        logging.getLogger("fontTools").setLevel(logging.WARNING)
        for library in ("OMP", "MKL", "OPENBLAS"):  # read when the library is loaded: before torch is first imported
            os.environ[f"{library}_NUM_THREADS"] = str(snakemake.threads)
        try:
            importable(snakemake.config.get("extensions") or [])
            seals.check(map(Path, snakemake.input))
            yield SimpleNamespace(
                spec=snakemake.params.spec,
                inputs={name: _paths(value) for name, value in snakemake.input.items()},
                outputs={name: _paths(value) for name, value in snakemake.output.items()},
                about=dict(snakemake.wildcards.items()),
            )
            seals.seal(map(Path, snakemake.output))
        except (UserError, OSError) as error:
            logging.error("error: %s", error)
            sys.exit(1)
        except Exception:
            logging.exception("a defect of the workflow:")
            sys.exit(1)


def _paths(value: Any) -> Path | list[Path]:
    return Path(value) if isinstance(value, str) else list(map(Path, value))


def device(wanted: str) -> Any:
    """The torch device of the config's `device` (auto, cpu or cuda), with threads and malloc set for a job on it."""
    import torch

    from dprobust.allocator import keep_memory

    keep_memory()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("config: device: cuda is asked for, but torch finds no CUDA GPU; use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
