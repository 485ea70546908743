"""The networks. Each maps images in [0, 1] to logits: input normalisation is its first layer, so that attacks,
distances and curvature are in pixel units."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dprobust.files import replaced


class Normalize(nn.Module):
    """(x - mean) / std for each channel; x is float (N, C, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def lenet(
    channels: Sequence[int] = (20, 50), hidden: Sequence[int] = (500,), classes: int = 10
) -> OrderedDict[str, nn.Module]:
    """The paper's LeNet for 1 x 28 x 28 images (section 3): 5x5 convolutions of stride 1, each with ReLU and 2x2
    max-pooling, then fully-connected ReLU layers of `hidden` units and the logits."""
    first, second = channels
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, first, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
    )
    width = second * 4 * 4
    for i, units in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(width, units)
        layers[f"fc{i}_relu"] = nn.ReLU()
        width = units
    layers["logits"] = nn.Linear(width, classes)
    return layers


MODELS: dict[str, Callable[..., OrderedDict[str, nn.Module]]] = {"lenet": lenet}
"""Architecture name -> function of the model settings that returns the layers."""

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,
    "xavier": nn.init.xavier_uniform_,
    "kaiming": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
}
"""Initialisation of the weights (biases: zero, but for PyTorch's default)."""


def build(
    name: str,
    normalize: dict[str, Sequence[float]] | None = None,
    init: str = "default",
    seed: int = 0,
    **settings,
) -> nn.Sequential:
    """Build a network, initialised from `seed` alone (the global generator is left as it was).

    Args:
        name: a key of `MODELS`.
        normalize: ``{"mean": [...], "std": [...]}``, a number a channel; None for inputs as they are.
        init: a key of `INITIALISATIONS`.
        seed: of the initial weights.
        settings: of the architecture, for example ``hidden=[500]``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = MODELS[name](**settings)
        if initialise := INITIALISATIONS[init]:
            for layer in layers.values():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    initialise(layer.weight)
                    nn.init.zeros_(layer.bias)
    if normalize:
        layers = OrderedDict(normalize=Normalize(**normalize)) | layers
    return nn.Sequential(layers)


def unit(images: Tensor) -> Tensor:
    """uint8 pixels 0 to 255 -> float32 in [0, 1]."""
    return images.float().div_(255)


def save(model: nn.Module, path: Path) -> None:
    """Write the parameters and buffers as safetensors; equal values are equal bytes."""
    with replaced(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, temporary)


def load(path: Path, settings: dict, device: torch.device | str = "cpu") -> nn.Module:
    """Rebuild a network from its settings (arguments of `build`) and the parameters that `save` wrote; eval mode."""
    model = build(**settings)
    model.load_state_dict(load_file(path))
    return model.to(device).eval()
