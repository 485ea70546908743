"""Accuracy on brightened images."""

from torch import nn

from dprobust.arrays import read_npz
from dprobust.inference import predict
from dprobust.measuring import Images, Measured
from faults_lab.metrics.lifted.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Rows: accuracy for each amount of light."""
    measured = Measured()
    for amount in read_npz(images.needs["amounts"])["amounts"].tolist():
        measured.add("accuracy", predict(model, (images.x + amount).clamp(0, 1)) == images.y, amount=amount)
    return measured
