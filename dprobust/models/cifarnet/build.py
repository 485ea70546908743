"""The paper's network for CIFAR-10."""

from collections import OrderedDict

from torch import nn

from dprobust.models.cifarnet.settings import Model
from dprobust.models.parts import ACTIVATIONS, POOLS, head
from dprobust.models.settings import Shape


def layers(settings: Model, shape: Shape, classes: int, dropout: float = 0.0) -> OrderedDict[str, nn.Module]:
    """3x3 convolutions of stride 1, each with an activation and 3x3 pooling of stride 2, then fully-connected layers
    and the logits (section 3.6 of the paper).

    Args:
        settings: of the network.
        shape: (C, H, W) of an image, at least 13 x 13 pixels.
        classes: number of classes.
        dropout: probability of the dropout before each hidden layer.
    """
    first, second = settings.channels
    convolutions: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(shape[0], first, 3)),
        *_activated_pool(settings, 1),
        ("conv2", nn.Conv2d(first, second, 3)),
        *_activated_pool(settings, 2),
        ("flatten", nn.Flatten()),
    ]
    return OrderedDict(convolutions) | head(settings, settings.features(shape), classes, dropout)


def _activated_pool(settings: Model, number: int) -> list[tuple[str, nn.Module]]:
    activation = f"{settings.activation}{number}", ACTIVATIONS[settings.activation]()
    pool = f"pool{number}", POOLS[settings.pooling](3, 2)
    # The maximum first: the same function, as the activation rises, on a quarter of the values.
    return [pool, activation] if settings.pooling == "max" else [activation, pool]
