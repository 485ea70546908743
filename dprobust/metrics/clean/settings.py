"""Settings of the metric `clean`."""

from dprobust.settings import MetricSettings

MINUTES = 10


class Metric(MetricSettings):
    """What the network makes of the test images as they are."""
