"""Settings of the metric `fgsm`."""

from dprobust.settings import EpsGrid, Losses, MetricSettings

MINUTES = 30
UNPUBLISHED = ("gradient_norm",)


class Metric(MetricSettings):
    """Accuracy under the fast gradient sign method."""

    eps: EpsGrid = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    """Sizes of the perturbation (largest change of a pixel, pixels in [0, 1]), ascending."""
    losses: Losses = ["ce", "ce_stable", "margin"]
    """Losses whose gradient is followed - ce is float32 cross-entropy as in the paper, ce_stable the same without its
    round-off, margin the largest wrong logit minus the right one. With several, the worst case over them, image by
    image, is recorded as well."""
