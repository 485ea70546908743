"""Settings of the metric `membership`."""

from typing import Annotated

from annotated_types import Gt, Le, MinLen

from dprobust.settings import Ascending, MetricSettings, Unique

MINUTES = 10
TRAINED = True
TRAIN_IMAGES = True


class Metric(MetricSettings):
    """Membership inference by the loss - how well it tells training images from test images."""

    fpr: Annotated[list[Annotated[float, Gt(0), Le(1)]], MinLen(1), Unique, Ascending] = [0.001, 0.01, 0.1]
    """False positive rates at which the true positive rate is recorded, ascending."""
