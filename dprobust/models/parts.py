"""Parts that several architectures are made of."""

from collections import OrderedDict

from torch import nn

from dprobust.models.settings import ConvolutionalSettings

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def head(
    settings: ConvolutionalSettings, width: int, classes: int, dropout: float = 0.0
) -> OrderedDict[str, nn.Module]:
    """Fully-connected layers on `width` features: dropout (if any), linear, activation, ..., the logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, units in enumerate(settings.hidden, start=1):
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        layers[f"fc{i}"] = nn.Linear(width, units)
        layers[f"fc{i}_{settings.activation}"] = ACTIVATIONS[settings.activation]()
        width = units
    layers["logits"] = nn.Linear(width, classes)
    return layers
