"""Settings of the paper's network for CIFAR-10."""

from typing import Annotated, Literal

from annotated_types import Len

from dprobust.models.settings import ConvolutionalSettings, Units


class Model(ConvolutionalSettings):
    """The paper's network for CIFAR-10 (section 3.6): 3x3 convolutions of stride 1, 3x3 pooling of stride 2."""

    name: Literal["cifarnet"] = "cifarnet"
    """Architecture."""
    channels: Annotated[list[Units], Len(2, 2)] = [64, 64]
    """Channels of the two convolutions."""
    hidden: list[Units] = [500, 500]
    """Units of the fully-connected layers between the convolutions and the logits."""

    def windows(self) -> list[tuple[int, int, int]]:
        """(size, stride, padding) of the convolutions and poolings, in their order."""
        return [(3, 1, 0), (3, 2, 0), (3, 1, 0), (3, 2, 0)]
