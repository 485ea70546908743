"""What the network makes of the test images as they are."""

import torch
from torch import nn

from dprobust.attacks import LOSSES
from dprobust.inference import check_images, map_batches
from dprobust.measuring import Images, Measured
from dprobust.metrics.clean.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Means over the images of four values, and the logits of each image.

    Rows, of metric: accuracy; cross_entropy, its mean in float64 of float32 logits; p_true_is_1, the share of images
    whose true class has a float32 softmax probability of exactly 1; confidence, the mean of the largest probability.

    Arrays, N images, K classes:
        logits: float32 [N, K]; prediction, margin, probabilities follow from it.
    """
    check_images(model, images.x, images.y)
    (logits,) = map_batches(model, lambda x: (model(x),), 256, images.x)
    p = logits.float().softmax(1)
    measured = Measured()
    measured.add("accuracy", logits.argmax(1) == images.y)
    measured.add("cross_entropy", LOSSES["ce_stable"](logits.double(), images.y))
    measured.add("p_true_is_1", p.gather(1, images.y[:, None]).squeeze(1) == 1)
    measured.add("confidence", p.amax(1))
    measured.keep("logits", logits.to(torch.float32))
    return measured
