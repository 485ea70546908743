"""A tiny network."""

from collections import OrderedDict

from torch import nn

from dprobust.models.settings import Shape
from my_lab.models.tiny.settings import Model


def layers(settings: Model, shape: Shape, classes: int, dropout: float = 0.0) -> OrderedDict[str, nn.Module]:
    """A 3x3 convolution of stride 2, ReLU, a hidden layer, ReLU, the logits.

    Args:
        settings: of the network.
        shape: (C, H, W) of an image, at least 3 x 3 pixels.
        classes: number of classes.
        dropout: probability of the dropout before the hidden layer.
    """
    channels, height, width = shape
    features = settings.channels * ((height - 1) // 2) * ((width - 1) // 2)
    named: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(channels, settings.channels, 3, stride=2)),
        ("relu1", nn.ReLU()),
        ("flatten", nn.Flatten()),
        *([("dropout", nn.Dropout(dropout))] if dropout else []),
        ("hidden", nn.Linear(features, settings.hidden)),
        ("relu2", nn.ReLU()),
        ("logits", nn.Linear(settings.hidden, classes)),
    ]
    return OrderedDict(named)
