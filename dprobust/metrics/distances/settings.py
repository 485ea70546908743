"""Settings of the metric `distances`."""

from dprobust.settings import Count, MetricSettings

MINUTES = 30
UNPUBLISHED = ("signed",)


class Metric(MetricSettings):
    """Distance of each test image to the decision boundary, linearised (Eq. 4) and by DeepFool."""

    deepfool: bool = True
    """Whether to run DeepFool as well, in both norms; it takes some three times as long as Eq. 4."""
    deepfool_images: Count | None = None
    """Run DeepFool on the first so many of the study's draw of the images measured; null means all."""
