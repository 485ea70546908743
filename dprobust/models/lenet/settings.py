"""Settings of the paper's LeNet."""

from typing import Annotated, Literal

from annotated_types import Len

from dprobust.models.settings import ConvolutionalSettings, Units


class Model(ConvolutionalSettings):
    """The paper's LeNet (section 3): 5x5 convolutions of stride 1, 2x2 pooling."""

    name: Literal["lenet"] = "lenet"
    """Architecture."""
    channels: Annotated[list[Units], Len(2, 2)] = [20, 50]
    """Channels of the two convolutions."""
    hidden: list[Units] = [500]
    """Units of the fully-connected layers between the convolutions and the logits."""

    def windows(self) -> list[tuple[int, int, int]]:
        """(size, stride, padding) of the convolutions and poolings, in their order."""
        return [(5, 1, 0), (2, 2, 0), (5, 1, 0), (2, 2, 0)]
