"""Typed settings of networks, and where the code of an architecture is found. Needs no torch."""

import difflib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len, MinLen

from dprobust.settings import Facts, Positive, Settings, fault

FOLDERS = ["dprobust.models"]
"""Packages whose subpackages are architectures, searched in this order; an extension adds its own."""

Shape = tuple[int, int, int]
"""(C, H, W)."""
Units = Annotated[int, Ge(1), Le(65_536)]
Activation = Literal["relu", "tanh"]
Pooling = Literal["max", "avg"]


class Normalization(Settings):
    """Input normalisation, (x - mean) / std on pixels in [0, 1]: the first layer of the network."""

    mean: Annotated[list[float], MinLen(1)]
    """A value a channel."""
    std: Annotated[list[Positive], MinLen(1)]
    """A value a channel."""


class ModelSettings(Settings):
    """What every network has in common."""

    name: str
    """Architecture: a folder of dprobust/models or of an extension, torchvision:NAME, or module:factory."""
    normalize: Normalization | None = None
    """Input normalisation; null: pixels in [0, 1] as they are. Constants computed from private data are not private."""
    init: Literal["default", "xavier", "kaiming"] = "default"
    """Initialisation of the weights: PyTorch's, or Xavier's or Kaiming's (for ReLU) uniform one with biases 0."""

    def fits(self, facts: Facts) -> None:
        """Raise a `fault` if the network cannot take the images."""
        if self.normalize and facts.shape:
            for key, values in self.normalize:
                if len(values) != facts.shape[0]:
                    raise fault(f"normalize.{key}: {len(values)} values, but images have {facts.shape[0]} channels")


class ConvolutionalSettings(ModelSettings):
    """Two convolutions, each with an activation and pooling, then fully-connected layers."""

    channels: Annotated[list[Units], Len(2, 2)]
    """Channels of the two convolutions."""
    hidden: list[Units]
    """Units of the fully-connected layers between the convolutions and the logits."""
    activation: Activation = "relu"
    """Activation."""
    pooling: Pooling = "max"
    """Pooling: the maximum or the average of a window."""

    def windows(self) -> list[tuple[int, int, int]]:
        """(size, stride, padding) of the convolutions and poolings, in their order."""
        raise NotImplementedError

    def fits(self, facts: Facts) -> None:
        """Raise a `fault` if the network cannot take the images."""
        super().fits(facts)
        if facts.shape:
            self.features(facts.shape)

    def features(self, shape: Shape) -> int:
        """Number of features that the convolutions make of an image (C, H, W); a `fault` if the image is too small."""
        height, width = (covered(size, self.windows()) for size in shape[1:])
        if height < 1 or width < 1:
            least = next(size for size in range(1, 10_000) if covered(size, self.windows()) > 0)
            raise fault(f"{self.name} takes images of {least} x {least} pixels or more, found {shape[1]} x {shape[2]}")
        return self.channels[-1] * height * width


class FactoryModel(ModelSettings):
    """A network that torchvision or a function of the user's makes, initialised there."""

    settings: dict[str, Any] = {}
    """Arguments of the function, besides shape and classes."""
    init: Literal["default"] = "default"
    """The function initialises the weights, from the seed of the run."""

    def fits(self, facts: Facts) -> None:
        """Raise a `fault` if the network cannot take the images."""
        super().fits(facts)
        if self.name.startswith("torchvision:") and facts.shape and facts.shape[0] not in (1, 3):
            raise fault(f"{self.name} takes grey or colour images, found {facts.shape[0]} channels")


def covered(size: int, windows: list[tuple[int, int, int]]) -> int:
    """Pixels in a row that are left of `size` by convolutions and poolings; 0 if a window does not fit."""
    for window, stride, padding in windows:
        if size + 2 * padding < window:
            return 0
        size = (size + 2 * padding - window) // stride + 1
    return size


def names() -> list[str]:
    """Names of the architectures there are."""
    found = []
    for folder in FOLDERS:
        spec = find_spec(folder)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found += sorted(path.parent.name for path in Path(place).glob("*/build.py"))
    return list(dict.fromkeys(found))


def settings_class(name: str) -> type[ModelSettings]:
    """The class of the settings of an architecture, by its name; a `fault` if there is no such architecture."""
    if ":" in name:
        return FactoryModel
    return import_module(f"{_package(name)}.settings").Model


def code(name: str) -> list[str]:
    """The modules that make the networks of an architecture; the first holds `layers`. What a fingerprint starts at.

    The settings are among them, as they know the sizes of the layers; for module:factory it is the user's module.
    """
    if ":" not in name:
        package = _package(name)
        return [f"{package}.build", f"{package}.settings"]
    module = name.partition(":")[0]
    return ["dprobust.models.factory", *([] if module == "torchvision" else [module])]


def _package(name: str) -> str:
    for folder in FOLDERS:
        if name.isidentifier() and find_spec(folder) and find_spec(f"{folder}.{name}"):
            package = f"{folder}.{name}"
            if find_spec(f"{package}").submodule_search_locations and find_spec(f"{package}.build"):
                return package
    known = names()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise fault(
        f"there is no architecture {name!r}{hint} (known: {', '.join(known)}; or torchvision:NAME, module:factory)"
    )
