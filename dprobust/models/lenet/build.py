"""The paper's LeNet."""

from collections import OrderedDict

from torch import nn

from dprobust.models.lenet.settings import Model
from dprobust.models.parts import ACTIVATIONS, POOLS, head
from dprobust.models.settings import Shape


def layers(settings: Model, shape: Shape, classes: int, dropout: float = 0.0) -> OrderedDict[str, nn.Module]:
    """5x5 convolutions of stride 1, each with an activation and 2x2 pooling of stride 2, then fully-connected layers
    and the logits (section 3 of the paper).

    Args:
        settings: of the network.
        shape: (C, H, W) of an image, at least 16 x 16 pixels.
        classes: number of classes.
        dropout: probability of the dropout before each hidden layer.
    """
    kind = settings.activation
    activation, pool = ACTIVATIONS[kind], POOLS[settings.pooling]
    first, second = settings.channels
    convolutions: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(shape[0], first, 5)),
        (f"{kind}1", activation()),
        ("pool1", pool(2)),
        ("conv2", nn.Conv2d(first, second, 5)),
        (f"{kind}2", activation()),
        ("pool2", pool(2)),
        ("flatten", nn.Flatten()),
    ]
    return OrderedDict(convolutions) | head(settings, settings.features(shape), classes, dropout)
