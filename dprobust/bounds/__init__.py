"""Lower bounds on robustness: certificates for images that no attack in the linf ball can break.

For networks of affine layers, ReLU and max-pooling, in a Sequential; `backward` has the method and its rounding.
"""

import copy

import torch
from torch import Tensor, nn

from dprobust.bounds.backward import Image
from dprobust.bounds.chain import chain
from dprobust.inference import check_images, check_size

__all__ = ["certified", "margin_bounds"]


@torch.no_grad()
def margin_bounds(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Lower bounds (N, K) float64 on the logit of the label less each class's, over all images in [0, 1] that differ
    by at most eps in each pixel; 0 for the label itself. They hold for the network as float32 computes it.

    x: float (N, C, H, W) in [0, 1]; y: int64 (N,); eps >= 0. Raises ValueError on arguments that do not fit, UserError
    on a layer that there are no bounds for.
    """
    check_images(model, x, y)
    check_size("eps", eps)
    blocks = chain(copy.deepcopy(model).cpu().double(), tuple(x.shape[1:]))
    rows = [_margins(blocks, image, int(label), eps) for image, label in zip(x.double().cpu(), y, strict=True)]
    return torch.stack(rows)


def certified(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """bool (N,): every margin of `margin_bounds` but the label's own is above 0, so that no image in the ball, the
    image itself among them, has a wrong class."""
    bounds = margin_bounds(model, x, y, eps)
    return bounds.scatter(1, y.cpu()[:, None], torch.inf).amin(1) > 0


def _margins(blocks: list, image: Tensor, label: int, eps: float) -> Tensor:
    # 1e-6: a float32 image may lie outside its ball by the last bits (`dprobust.attacks.balls.ROUND_OFF`).
    reach = eps + 1e-6 if eps else 0.0
    bounds = Image(blocks, (image - reach).clamp(0, 1), (image + reach).clamp(0, 1))
    for _ in blocks[:-1]:
        bounds.relax()
    bounds.enter()
    count = blocks[-1].shape[0]
    unit = torch.eye(count, dtype=torch.float64)
    differences = (unit[label] - unit)[:, :, None, None]
    found = bounds.lower(len(blocks) - 1, differences)
    found[label] = 0
    return found
