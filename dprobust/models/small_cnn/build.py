"""The small network that much of the work on DP-SGD trains."""

from collections import OrderedDict

from torch import nn

from dprobust.models.parts import ACTIVATIONS, POOLS, head
from dprobust.models.settings import Shape
from dprobust.models.small_cnn.settings import Model


def layers(settings: Model, shape: Shape, classes: int, dropout: float = 0.0) -> OrderedDict[str, nn.Module]:
    """8x8 and 4x4 convolutions of stride 2, each with an activation and 2x2 pooling of stride 1, then fully-connected
    layers and the logits (Papernot et al. 2020, arXiv 2007.14191; Tramer and Boneh 2021, arXiv 2011.11660).

    Args:
        settings: of the network.
        shape: (C, H, W) of an image, at least 14 x 14 pixels with a padding of 3.
        classes: number of classes.
        dropout: probability of the dropout before each hidden layer.
    """
    kind = settings.activation
    activation, pool = ACTIVATIONS[kind], POOLS[settings.pooling]
    first, second = settings.channels
    convolutions: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(shape[0], first, 8, stride=2, padding=settings.padding)),
        (f"{kind}1", activation()),
        ("pool1", pool(2, 1)),
        ("conv2", nn.Conv2d(first, second, 4, stride=2)),
        (f"{kind}2", activation()),
        ("pool2", pool(2, 1)),
        ("flatten", nn.Flatten()),
    ]
    return OrderedDict(convolutions) | head(settings, settings.features(shape), classes, dropout)
