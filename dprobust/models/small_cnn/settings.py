"""Settings of the small network that much of the work on DP-SGD trains."""

from typing import Annotated, Literal

from annotated_types import Ge, Le, Len

from dprobust.models.settings import Activation, ConvolutionalSettings, Units


class Model(ConvolutionalSettings):
    """The small CNN of Papernot et al. (2020), which Tramer and Boneh (2021), DP-CERT and others train: 8x8 and 4x4
    convolutions of stride 2, 2x2 pooling of stride 1; 26,010 parameters on MNIST."""

    name: Literal["small_cnn"] = "small_cnn"
    """Architecture."""
    channels: Annotated[list[Units], Len(2, 2)] = [16, 32]
    """Channels of the two convolutions."""
    hidden: list[Units] = [32]
    """Units of the fully-connected layers between the convolutions and the logits."""
    activation: Activation = "tanh"
    """Activation; tanh is that of Papernot et al. and of Tramer and Boneh."""
    padding: Annotated[int, Ge(0), Le(7)] = 3
    """Zeros around the images of the first convolution; Tramer and Boneh have 2 (as many parameters on MNIST)."""

    def windows(self) -> list[tuple[int, int, int]]:
        """(size, stride, padding) of the convolutions and poolings, in their order."""
        return [(8, 2, self.padding), (2, 1, 0), (4, 2, 0), (2, 1, 0)]
