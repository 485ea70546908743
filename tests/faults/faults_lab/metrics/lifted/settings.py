"""Settings of the metric `lifted`."""

from dprobust.settings import MetricSettings

MINUTES = 1


class Metric(MetricSettings):
    """Accuracy on brightened images."""


def needs(settings: Metric, dataset: str) -> dict[str, str]:
    """Amounts of light."""
    return {"amounts": "data/brightness/even.npz"}
