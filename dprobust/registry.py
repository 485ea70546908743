"""What there is: metrics, displays, models, datasets and materials, the package's own and those of extensions.

A thing is a folder (a dataset, a quantity: a module) that is found by what lies in it, so that adding one edits
nothing:

* ``metrics/NAME/`` with measure.py (and settings.py): a metric;
* ``metrics/NAME/`` or ``displays/NAME/`` with show.py (and display.py, caption.rst): a display;
* ``models/NAME/`` with build.py (and settings.py): a network;
* ``materials/NAME/`` with make.py (and settings.py): what metrics need besides models and images;
* ``quantities/NAME.py`` with Quantity and sample: what claims are about;
* ``datasets/NAME.py`` with SOURCE: a dataset; the package's own are in ``sources/``.

An extension is a folder of the same shape, a package of the name it has. Nothing here needs torch.
"""

import importlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from dprobust.errors import UserError
from dprobust.extensions import importable

PACKAGE = Path(__file__).parent
PARTS = {"metrics": "measure.py", "displays": "show.py", "models": "build.py", "materials": "make.py"}
"""Kind -> the file that makes a folder one."""
PLACES = {"displays": ("metrics", "displays")}
"""Where the folders of a kind lie, if not in one of its name."""


class Registry:
    """The things of the package and of extensions.

    Args:
        extensions: folders, each a Python package in the making; they come first, and are made importable.

    Raises:
        UserError: no such folder, or a name that cannot be imported.
    """

    def __init__(self, extensions: Iterable[str] = ()) -> None:
        self.packages = importable(extensions)
        """Name -> folder, of each extension."""

    @property
    def roots(self) -> dict[str, Path]:
        """Package -> folder, extensions first."""
        return self.packages | {PACKAGE.name: PACKAGE}

    def _found(self, kind: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for package, root in self.roots.items():
            for place in PLACES.get(kind, (kind,)):
                for path in sorted((root / place).glob(f"*/{PARTS[kind]}")):
                    name = path.parent.name
                    if name in found:
                        raise UserError(f"extensions: {path.parent}: there is a {name} already, in {found[name]}")
                    found[name] = f"{package}.{place}.{name}"
        return dict(sorted(found.items()))

    @cached_property
    def metrics(self) -> dict[str, str]:
        """Metric -> its package."""
        return self._found("metrics")

    @cached_property
    def displays(self) -> dict[str, str]:
        """Kind of display -> its package."""
        return self._found("displays")

    @cached_property
    def models(self) -> dict[str, str]:
        """Architecture -> its package."""
        return self._found("models")

    @cached_property
    def materials(self) -> dict[str, str]:
        """Material -> its package."""
        return self._found("materials")

    @cached_property
    def quantities(self) -> dict[str, str]:
        """Quantity -> its module."""
        found: dict[str, str] = {}
        for package, root in self.roots.items():
            for path in sorted((root / "quantities").glob("[a-z]*.py")):
                if path.stem in found:
                    raise UserError(f"extensions: {path}: there is a {path.stem} already, in {found[path.stem]}")
                found[path.stem] = f"{package}.quantities.{path.stem}"
        return dict(sorted(found.items()))

    @cached_property
    def sources(self) -> Mapping[str, Any]:
        """Datasets that extensions bring: name -> `dprobust.sources.Source`."""
        modules = {
            path.stem: f"{package}.datasets.{path.stem}"
            for package, root in self.packages.items()
            for path in sorted((root / "datasets").glob("[a-z]*.py"))
        }
        return {name: load(module).SOURCE for name, module in modules.items()}

    def metric(self, name: str) -> ModuleType:
        """settings.py of a metric."""
        return load(f"{self.metrics[name]}.settings")

    def display(self, name: str) -> ModuleType:
        """display.py of a kind of display."""
        return load(f"{self.displays[name]}.display")

    def material(self, name: str) -> ModuleType:
        """settings.py of a material."""
        return load(f"{self.materials[name]}.settings")

    def quantity(self, name: str) -> ModuleType:
        """The module of a quantity."""
        return load(self.quantities[name])

    def caption(self, display: str, entry: str) -> Path:
        """The caption of a figure, table or page: that of its name, or that of its kind of display."""
        own = [root / "captions" / f"{entry}.rst" for root in self.packages.values()]
        own.append(PACKAGE.parent / "workflow" / "captions" / f"{entry}.rst")
        package, *rest = self.displays[display].split(".")
        return next((path for path in own if path.is_file()), self.roots[package].joinpath(*rest) / "caption.rst")

    def paper(self, file: str) -> Path | None:
        """The file of that name with values that a paper states; None if there is none."""
        places = [*(root / "paper" for root in self.packages.values()), PACKAGE.parent / "workflow" / "paper"]
        return next((path / file for path in places if (path / file).is_file()), None)

    def claims(self, file: str) -> Path | None:
        """A file of claims: here, in an extension or in the project; None if there is none."""
        places = [Path(), *self.packages.values(), PACKAGE.parent]
        return next((place / file for place in places if (place / file).is_file()), None)


def load(module: str) -> ModuleType:
    """Import a module of the package or of an extension."""
    try:
        return importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
