"""Accuracy against the angle by which images are rotated."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dprobust.inference import predict
from dprobust.measuring import Images, Measured
from my_lab.metrics.rotation.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Accuracy for each angle.

    Rows: accuracy for each angle.

    Arrays, A angles, N images:
        angle: float64 [A], in degrees: names of the axis.
        predicted: uint8 [A, N], class of the rotated image; int16 where there are more than 256 classes.
    """
    measured = Measured()
    predicted = torch.stack([predict(model, rotated(images.x, angle)) for angle in settings.angles])
    for angle, classes in zip(settings.angles, predicted, strict=True):
        measured.add("accuracy", classes == images.y, angle=angle)
    measured.keep("angle", settings.angles)
    measured.keep("predicted", predicted.to(torch.uint8 if predicted.max() < 256 else torch.int16))
    return measured


def rotated(x: Tensor, angle: float) -> Tensor:
    """Images float (N, C, H, W) in [0, 1], turned about their centre by `angle` degrees counterclockwise; bilinear,
    black where there was no image."""
    height, width = x.shape[2:]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # In coordinates from -1 to 1 a pixel is as wide as 2 / width, as high as 2 / height.
    turn = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]], dtype=x.dtype)
    grid = F.affine_grid(turn.expand(len(x), 2, 3).to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False).clamp(0, 1)
