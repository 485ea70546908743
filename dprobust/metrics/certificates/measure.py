"""Accuracy from both sides: certified from below, attacked from above."""

import torch
from torch import Tensor, nn

from dprobust.attacks import pgd
from dprobust.bounds import least_margins
from dprobust.inference import predict
from dprobust.measuring import Images, Measured
from dprobust.metrics.certificates.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Lower bounds on margins (`dprobust.bounds`), and PGD with the margin loss on the same images.

    Rows, for each eps: certified, the share of the images that no image in their ball is wrong of; attacked, the share
    that PGD leaves right in this ball and in the smaller ones. Row clean, of eps 0: the share that is right as it is.

    Arrays, E eps, N images:
        eps: float64 [E], name of the axis.
        margin: float64 [E, N], a lower bound on the least margin in the ball, right logit minus wrong one: above 0 the
            image is certified. Where an image is certified at a larger eps, that one's bound; -inf where none was
            sought, because the image is wrong or a smaller eps gave no certificate.
        attacked: bool [E, N], the image is right after PGD in this ball and in the smaller ones.
        clean: bool [N], it is right as it is.

    Raises:
        RuntimeError: an image is certified and broken.
        UserError: a layer that there are no bounds for.
    """
    x, y = images.x, images.y
    clean = predict(model, x) == y
    margin = least_margins(model, x, y, settings.eps)
    left, attacked = clean, []
    for eps in settings.eps:
        moved = pgd(model, x, y, eps, 2.5 * eps / settings.pgd_steps, settings.pgd_steps, loss="margin")
        left = left & (predict(model, moved) == y)
        attacked.append(left)
    kept = torch.stack(attacked)
    _agree(margin, kept, images.index, settings.eps)
    measured = Measured()
    measured.add("clean", clean, eps=0.0)
    for eps, bounds, right in zip(settings.eps, margin, kept, strict=True):
        measured.add("certified", bounds > 0, eps=eps)
        measured.add("attacked", right, eps=eps)
    measured.keep("eps", settings.eps)
    measured.keep("margin", margin)
    measured.keep("attacked", kept)
    measured.keep("clean", clean)
    return measured


def _agree(margin: Tensor, attacked: Tensor, index: Tensor, eps: list[float]) -> None:
    """Raise RuntimeError if an image is certified and broken: the bounds, or the attack's ball, would be wrong."""
    for size, wrong in zip(eps, (margin > 0) & ~attacked.cpu(), strict=True):
        if wrong.any():
            places = ", ".join(str(place) for place in index.cpu()[wrong].tolist())
            raise RuntimeError(f"certificates: certified at eps {size:g} and broken there, test images {places}")
