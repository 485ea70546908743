"""FGSM accuracy over a grid of eps, for each attack loss and for the worst of them."""

import torch
from torch import nn

from dprobust.attacks import fgsm_curve
from dprobust.measuring import Images, Measured
from dprobust.metrics.fgsm.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Accuracy for each loss and eps, and in which images the gradient fails.

    Rows: accuracy for each loss and eps; p_true_is_1 and zero_gradient, shares of images, for each loss (at eps 0: they
    are the clean image's). Of several losses also the accuracy of loss "worst": right only where every loss leaves the
    image right.

    Arrays, L losses, E eps, N images:
        loss: str [L], eps: float64 [E]: names of the axes.
        predicted: uint8 [L, E, N], class of the adversarial image; int16 where there are more than 256 classes.
        gradient_norm: float32 [L, N], l2 norm of the loss gradient with respect to the clean image.
        saturated: bool [L, N], float32 softmax gives the true class of the clean image a probability of exactly 1.
        zero_gradient: bool [L, N], the gradient is exactly 0 everywhere, so that FGSM leaves the image as it is.
    """
    curves = [fgsm_curve(model, images.x, images.y, settings.eps, loss) for loss in settings.losses]
    measured = Measured()

    def add(loss: str, correct: torch.Tensor) -> None:
        for eps, column in zip(settings.eps, correct.unbind(1), strict=True):
            measured.add("accuracy", column, loss=loss, eps=eps)

    for loss, curve in zip(settings.losses, curves, strict=True):
        add(loss, curve.correct)
        measured.add("p_true_is_1", curve.saturated, loss=loss, eps=0.0)
        measured.add("zero_gradient", curve.zero_gradient, loss=loss, eps=0.0)
    if len(curves) > 1:
        add("worst", torch.stack([curve.correct for curve in curves]).all(0))
    measured.keep("loss", settings.losses)
    measured.keep("eps", settings.eps)
    measured.keep("predicted", torch.stack([curve.predicted.T for curve in curves]))
    for name in ("gradient_norm", "saturated", "zero_gradient"):
        measured.keep(name, torch.stack([getattr(curve, name) for curve in curves]))
    return measured
