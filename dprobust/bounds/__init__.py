"""Lower bounds on robustness: certificates for images that no attack in the linf ball can break.

For networks of affine layers, ReLU and max-pooling, in a Sequential; `backward` has the method and its rounding.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dprobust.bounds.backward import Image
from dprobust.bounds.chain import chain
from dprobust.inference import check_images, check_size, predict

__all__ = ["certified", "least_margins", "margin_bounds"]


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
    """bool (N,): no image in the ball, x itself among them, has a wrong class. Arguments as in `margin_bounds`."""
    return least_margins(model, x, y, [eps])[0] > 0


@torch.no_grad()
def least_margins(model: nn.Module, x: Tensor, y: Tensor, eps: Sequence[float]) -> Tensor:
    """Lower bounds (E, N) float64 on the least margin over the other classes, for each of ascending eps.

    What is sought, by bisection, is the largest eps at which an image is certified (its bound is above 0). At a smaller
    eps the bound of a larger one holds and stands. At one larger than that of a bound of 0 or less none is sought, nor
    of an image that is wrong as it is: -inf. Other arguments and errors as in `margin_bounds`; ValueError if eps does
    not ascend.
    """
    check_images(model, x, y)
    for value in eps:
        check_size("eps", value)
    if list(eps) != sorted(set(eps)):
        raise ValueError(f"eps: {list(eps)} does not ascend")
    blocks = chain(copy.deepcopy(model).cpu().double(), tuple(x.shape[1:]))
    right = predict(model, x).cpu() == y.cpu()
    found = torch.full((len(eps), len(x)), -torch.inf, dtype=torch.float64)
    for n in right.nonzero()[:, 0].tolist():
        label, first, last = int(y[n]), 0, len(eps)
        while first < last:  # certified below first, without a certificate from last on
            middle = (first + last) // 2
            margins = _margins(blocks, x[n].double().cpu(), label, eps[middle])
            margins[label] = torch.inf
            found[first : middle + 1, n] = margins.amin()
            first, last = (middle + 1, last) if margins.amin() > 0 else (first, middle)
    return found


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
