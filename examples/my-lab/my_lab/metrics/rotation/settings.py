"""Settings of the metric `rotation`."""

from typing import Annotated

from annotated_types import Ge, Le, MinLen

from dprobust.settings import Ascending, MetricSettings, Unique

MINUTES = 10

Angle = Annotated[float, Ge(-180), Le(180)]


class Metric(MetricSettings):
    """Accuracy on rotated images."""

    angles: Annotated[list[Angle], MinLen(1), Unique, Ascending] = [-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0]
    """Angles in degrees, counterclockwise, ascending."""
