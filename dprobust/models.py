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
    channels: Sequence[int] = (20, 50), hidden: Sequence[int] = (500,), classes: int = 10, dropout: float = 0.0
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
    return layers | _head(second * 4 * 4, hidden, classes, dropout)


def cifarnet(
    channels: Sequence[int] = (64, 64), hidden: Sequence[int] = (500, 500), classes: int = 10, dropout: float = 0.0
) -> OrderedDict[str, nn.Module]:
    """The paper's network for 3 x 32 x 32 images (section 3.6): 3x3 convolutions of stride 1, each with ReLU and 3x3
    max-pooling of stride 2, then fully-connected ReLU layers of `hidden` units and the logits."""
    first, second = channels
    # Pooling before ReLU: the same function, on a quarter of the values.
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, first, 3),
        pool1=nn.MaxPool2d(3, 2),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(first, second, 3),
        pool2=nn.MaxPool2d(3, 2),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
    )
    return layers | _head(second * 5 * 5, hidden, classes, dropout)


def _head(width: int, hidden: Sequence[int], classes: int, dropout: float) -> OrderedDict[str, nn.Module]:
    """Fully-connected layers on `width` features: dropout (if any), linear, ReLU, ..., the logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, units in enumerate(hidden, start=1):
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        layers[f"fc{i}"] = nn.Linear(width, units)
        layers[f"fc{i}_relu"] = nn.ReLU()
        width = units
    layers["logits"] = nn.Linear(width, classes)
    return layers


MODELS: dict[str, Callable[..., OrderedDict[str, nn.Module]]] = {"lenet": lenet, "cifarnet": cifarnet}
"""Architecture name -> function of the model settings that returns the layers; `flatten` ends the convolutions."""

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


def split(model: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The convolutional features of a network of `MODELS` (input normalisation to flatten) and its head, which share
    their parameters with it."""
    end = list(dict(model.named_children())).index("flatten") + 1
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


def save(model: nn.Module, path: Path) -> None:
    """Write the parameters and buffers as safetensors; equal values are equal bytes."""
    with replaced(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, temporary)


def load(path: Path, settings: dict, device: torch.device | str = "cpu") -> nn.Sequential:
    """Rebuild a network from its settings (arguments of `build`) and the parameters that `save` wrote; eval mode."""
    model = build(**settings)
    model.load_state_dict(load_file(path))
    return model.to(device).eval()


def load_features(model: nn.Sequential, path: Path) -> None:
    """Give `model` the convolutional features that `save` wrote (`split`), frozen: without gradient."""
    features = split(model)[0]
    features.load_state_dict(load_file(path))
    features.requires_grad_(False)
