"""Settings of a tiny network."""

from typing import Literal

from dprobust.models.settings import ModelSettings, Units
from dprobust.settings import Facts, fault


class Model(ModelSettings):
    """One 3x3 convolution of stride 2 and one hidden layer."""

    name: Literal["tiny"] = "tiny"
    """Architecture."""
    channels: Units = 8
    """Channels of the convolution."""
    hidden: Units = 32
    """Units of the hidden layer."""

    def fits(self, facts: Facts) -> None:
        """Raise a `fault` if the network cannot take the images."""
        super().fits(facts)
        if facts.shape and min(facts.shape[1:]) < 3:
            raise fault(f"tiny takes images of 3 x 3 pixels or more, found {facts.shape[1]} x {facts.shape[2]}")
