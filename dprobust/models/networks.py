"""Networks: built, split, saved, loaded. Each maps images in [0, 1] to logits: input normalisation is its first layer,
so that attacks, distances and curvature are in pixel units."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dprobust.errors import UserError
from dprobust.files import replaced
from dprobust.models.settings import ModelSettings, Shape, code, settings_class
from dprobust.settings import Facts

NAMED = 3
"""Parameters that an error names before it only counts them."""


class Normalize(nn.Module):
    """(x - mean) / std for each channel; x is float (N, C, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Temperature(nn.Module):
    """Logits divided by a temperature > 0: every decision stays, confidence does not."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, found {temperature}")
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature

    def extra_repr(self) -> str:
        return f"{self.temperature:g}"


INITIALISATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,
    "xavier": nn.init.xavier_uniform_,
    "kaiming": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
}
"""Initialisation of the weights (biases: zero, but for PyTorch's default)."""


def build(
    settings: Mapping[str, Any], shape: Shape, classes: int, seed: int = 0, dropout: float = 0.0
) -> nn.Sequential:
    """Build a network, initialised from `seed` alone (the global generator is left as it was).

    Args:
        settings: of the network, plain: ``{"name": "lenet", "hidden": [500], ...}`` (`dprobust.models.settings`).
        shape: (C, H, W) of an image.
        classes: number of classes.
        seed: of the initial weights.
        dropout: probability of the dropout before each hidden layer.

    Raises:
        UserError: settings, or images, that the architecture does not take.
    """
    checked = check(settings, shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = import_module(code(checked.name)[0]).layers(
            checked, shape, classes, dropout
        )
        if initialise := INITIALISATIONS[checked.init]:
            for layer in layers.values():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    initialise(layer.weight)
                    nn.init.zeros_(layer.bias)
    return nn.Sequential(normalization(checked) | layers)


def check(settings: Mapping[str, Any], shape: Shape) -> ModelSettings:
    """The typed settings of a network for images (C, H, W); UserError if there is something wrong with them."""
    try:
        checked = settings_class(settings.get("name", ""))(**settings)
        checked.fits(Facts(shape=tuple(shape)))
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        found = "" if first["type"] == "setting" else f"found {first['input']!r}: "  # a `fault` says it itself
        raise UserError(f"model{key}: {found}{first['msg']}") from None
    except PydanticCustomError as error:
        raise UserError(f"model: {error.message()}") from None
    return checked


def normalization(settings: ModelSettings) -> OrderedDict[str, nn.Module]:
    """The first layer of a network, if it normalises its inputs."""
    if settings.normalize is None:
        return OrderedDict()
    return OrderedDict(normalize=Normalize(settings.normalize.mean, settings.normalize.std))


def split(model: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The convolutional features of a network (input normalisation to the layer `flatten`) and its head, which share
    their parameters with it.

    Raises:
        UserError: the network has no layer `flatten`.
    """
    names = list(dict(model.named_children()))
    if "flatten" not in names:
        raise UserError(
            "pretraining: this network has no layer named flatten that ends its convolutions; set pretraining: null"
        )
    end = names.index("flatten") + 1
    return model[:end], model[end:]


def unit(examples: Tensor) -> Tensor:
    """uint8 pixels 0 to 255 -> float32 in [0, 1]; features, which are float, stay as they are."""
    return examples.float().div_(255) if examples.dtype == torch.uint8 else examples


@torch.no_grad()
def compute_features(features: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Features float32 (N, F) of images uint8 (N, C, H, W), on the device of the network, returned on the CPU."""
    features.to(memory_format=torch.channels_last).eval()
    device = next(features.parameters()).device
    return torch.cat([features(unit(batch.to(device))).cpu() for batch in images.split(batch_size)])


def with_temperature(model: nn.Module, temperature: float) -> nn.Module:
    """The model with its logits divided by `temperature`; at 1 the model itself. It shares its parameters."""
    if temperature == 1:
        return model
    return nn.Sequential(OrderedDict(model=model, temperature=Temperature(temperature))).train(model.training)


def save(model: nn.Module, path: Path) -> None:
    """Write the parameters and buffers as safetensors; equal values are equal bytes."""
    with replaced(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, temporary)


def load(
    path: Path, settings: Mapping[str, Any], shape: Shape, classes: int, device: torch.device | str = "cpu"
) -> nn.Sequential:
    """Rebuild a network from its settings (as for `build`) and the parameters that `save` wrote; eval mode.

    Raises:
        UserError: a file that is damaged or holds the parameters of another network.
    """
    model = build(settings, shape, classes)
    fill(model, read(path), path)
    return model.to(device).eval()


def load_features(model: nn.Sequential, path: Path) -> None:
    """Give `model` the convolutional features that `save` wrote (`split`), frozen: without gradient."""
    features = split(model)[0]
    fill(features, read(path), path)
    features.requires_grad_(False)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; UserError if it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); remove it and make it again") from None


def fill(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a network its parameters and buffers; UserError, naming the first that do not fit, unless all do."""
    if told := misfits(model, state):
        raise UserError(f"{path}: does not fit the network of the settings: {told}")
    model.load_state_dict(state)


def misfits(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What of `state` does not fit a network, in words; empty if all fits."""
    own = model.state_dict()
    missing = [f"{name} {_size(value)}" for name, value in own.items() if name not in state]
    extra = [f"{name} {_size(value)}" for name, value in state.items() if name not in own]
    other = [
        f"{name} is {_size(state[name])}, the network's {_size(value)}"
        for name, value in own.items()
        if name in state and value.shape != state[name].shape
    ]
    parts = [("missing ", missing), ("unexpected ", extra), ("", other)]
    return "; ".join(word + _first(found) for word, found in parts if found)


def _first(found: list[str]) -> str:
    more = len(found) - NAMED
    return ", ".join(found[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _size(value: Tensor) -> str:
    return f"({' x '.join(map(str, value.shape))})" if value.ndim else "(a number)"
