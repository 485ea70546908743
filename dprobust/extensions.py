"""Folders with metrics, displays, models and datasets of a user's own, as Python packages."""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from dprobust.errors import UserError
from dprobust.models.settings import FOLDERS


def importable(folders: Iterable[str]) -> dict[str, Path]:
    """Make folders importable as packages of their names, and return name -> folder.

    Raises:
        UserError: no such folder, or a name that cannot be imported or is another package's.
    """
    packages: dict[str, Path] = {}
    if (here := str(Path.cwd())) not in sys.path:  # where modules of the user's own lie
        sys.path.append(here)
    for folder in map(Path, folders):
        path = folder.resolve()
        if not folder.is_dir():
            raise UserError(f"extensions: no folder {folder} (paths are relative to where snakemake is called)")
        if not path.name.isidentifier():
            raise UserError(f"extensions: {folder}: {path.name!r} names no Python package; use letters, digits and _")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        found = importlib.util.find_spec(path.name)
        places = [Path(place).resolve() for place in (found.submodule_search_locations or [])] if found else []
        if places != [path]:
            raise UserError(f"extensions: {folder}: another Python package is called {path.name}; rename the folder")
        packages[path.name] = path
        if (models := f"{path.name}.models") not in FOLDERS:
            FOLDERS.append(models)
    return packages
