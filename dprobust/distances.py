"""Distance of an image to the decision boundary: linearised, Eq. 4 of the paper (Figs 5a, 5b), and DeepFool.

Distances are in units of the full pixel range, in the whole input space: the nearest boundary point may lie
outside [0, 1].
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.inference import (
    check_choice,
    check_count,
    check_images,
    check_size,
    classes,
    compact,
    logit_differences,
    map_batches,
)

ORDER = {"l2": 2, "linf": torch.inf}
DUAL_ORDER = {"l2": 2, "linf": 1}
"""The q of Eq. 4: the order of the gradient norm for a distance in each norm."""
HALVINGS = 12
"""Of the last step of DeepFool: the boundary is found to 2.4e-4 of it."""


class BoundaryDistances(NamedTuple):
    """Eq. 4 in both norms, each (N,) in the images' dtype.

    The absolute distances are the paper's: a misclassified image has a positive distance too. The signed ones
    are the minimum over k of (f_y - f_k) / ||grad f_y - grad f_k||_q: the same for a correct image, negative
    for a misclassified one. Where the logits do not depend on the image, both are infinite.
    """

    l2: Tensor
    linf: Tensor
    l2_signed: Tensor
    linf_signed: Tensor
    correct: Tensor
    """bool (N,): no other logit is larger than the true one."""
    l2_class: Tensor
    """(N,): the class k of the minimum for `l2`, uint8; int16 where there are more than 256."""
    linf_class: Tensor
    """(N,): likewise for `linf`."""
    predicted: Tensor
    """(N,): class of the image, of the same type."""


class DeepFool(NamedTuple):
    """Outcome of `deepfool`, per image."""

    images: Tensor
    """(N, C, H, W): the boundary point, adversarial by a hair where `fooled`, else the last iterate."""
    distance: Tensor
    """(N,): norm of the perturbation; 0 where already misclassified, infinite where not fooled."""
    landing: Tensor
    """(N,): likewise before the last step is cut back to the boundary, as Algorithm 2 itself ends."""
    iterations: Tensor
    """int64 (N,): linearisations used."""
    fooled: Tensor
    """bool (N,): the prediction on `images` is wrong."""
    predicted: Tensor
    """(N,): that prediction, uint8; int16 where there are more than 256 classes."""


def boundary_distances(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 64) -> BoundaryDistances:
    """Eq. 4 of the paper, min over k != y of |f_y - f_k| / ||grad f_y - grad f_k||_q, in both norms.

    q is 2 for l2 and 1 for linf. x: float (N, C, H, W) in [0, 1]; y: int64 (N,). Both norms come from the
    same K - 1 gradients. Raises ValueError on images or labels that do not fit.
    """
    check_images(model, x, y)

    def distances(x: Tensor, y: Tensor) -> BoundaryDistances:
        differences, gradients = logit_differences(model, x, y)
        l2, linf = (_quotients(-differences, gradients, norm) for norm in ("l2", "linf"))
        nearest = [quotients.abs().min(1) for quotients in (l2, linf)]
        correct, count = differences.amax(1) <= 0, differences.shape[1] + 1
        *others, highest = (
            compact((y + 1 + column) % count, count)
            for column in (nearest[0].indices, nearest[1].indices, differences.argmax(1))
        )
        return BoundaryDistances(
            *(minimum.values for minimum in nearest),
            l2.amin(1),
            linf.amin(1),
            correct,
            *others,
            compact(y, count).where(correct, highest),
        )

    return BoundaryDistances(*map_batches(model, distances, batch_size, x, y))


def boundary_distance(model: nn.Module, x: Tensor, y: Tensor, norm: str, batch_size: int = 64) -> Tensor:
    """Eq. 4 of the paper in one norm, "l2" or "linf": the absolute distances (N,) of `boundary_distances`."""
    check_choice("norm", norm, ORDER)
    return getattr(boundary_distances(model, x, y, batch_size), norm)


def deepfool(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: str,
    max_iterations: int = 50,
    overshoot: float = 0.02,
    batch_size: int = 64,
) -> DeepFool:
    """DeepFool (Moosavi-Dezfooli et al. 2016, Algorithm 2) in the "l2" or "linf" norm, over all K classes.

    Steps to the nearest linearised boundary add up to r until x + (1 + overshoot) r is misclassified. That lies past
    the boundary, not equally far for every network, so the last step is then bisected, and what is told is of the
    nearest point on it found misclassified. x and y as in `boundary_distances`; max_iterations >= 1; overshoot >= 0.
    Raises ValueError on arguments that do not fit.
    """
    check_images(model, x, y)
    check_choice("norm", norm, ORDER)
    check_count("max_iterations", max_iterations)
    check_size("overshoot", overshoot)

    def length(images: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm((images - x).flatten(1), ORDER[norm], dim=1)

    def search(x: Tensor, y: Tensor) -> DeepFool:
        images, before, total = x.clone(), x.clone(), torch.zeros_like(x)
        iterations = torch.zeros_like(y)
        active = torch.arange(len(y), device=y.device)
        for _ in range(max_iterations):
            active = active[model(images[active]).argmax(1) == y[active]]
            if len(active) == 0:
                break
            differences, gradients = logit_differences(model, images[active], y[active])
            distance, nearest = _quotients(differences, gradients, norm).abs().min(1)
            iterations[active] += 1
            normal = gradients[torch.arange(len(active), device=y.device), nearest].flatten(1)
            reachable = normal.any(1)
            active, distance, normal = active[reachable], distance[reachable], normal[reachable]
            direction = normal.sign() if norm == "linf" else normal / normal.norm(dim=1, keepdim=True)
            # An image may land on a boundary to the last bit: the floor takes it across.
            step = distance.clamp_min(1e-6)[:, None] * direction
            total[active] += step.view_as(x[active])
            before[active] = images[active]
            images[active] = x[active] + (1 + overshoot) * total[active]
        # In batches of one size from here on: another size may round otherwise, and so near the boundary that tells.
        predicted = classes(model(images))
        fooled = predicted != y
        landing = length(images, x).where(fooled, torch.inf)
        images, predicted = _boundary(model, before, images, predicted, y, fooled & (iterations > 0))
        return DeepFool(images, length(images, x).where(fooled, torch.inf), landing, iterations, fooled, predicted)

    return DeepFool(*map_batches(model, search, batch_size, x, y))


def _boundary(
    model: nn.Module, inside: Tensor, outside: Tensor, predicted: Tensor, y: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """For the chosen images the point nearest to `inside`, on the way to the misclassified `outside`, that bisection
    finds misclassified, and its class; `outside` and `predicted` for the others."""
    if not chosen.any():
        return outside, predicted
    found = outside
    low, high = torch.zeros_like(outside[:, :1, :1, :1]), torch.ones_like(outside[:, :1, :1, :1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        images = torch.lerp(inside, outside, middle)
        there = classes(model(images))
        wrong = (there != y) & chosen
        predicted = there.where(wrong, predicted)
        wrong = wrong[:, None, None, None]
        found = images.where(wrong, found)
        low, high = low.where(wrong, middle), middle.where(wrong, high)
    return found, predicted


def _quotients(margins: Tensor, gradients: Tensor, norm: str) -> Tensor:
    """Margins (N, K-1) over the dual norms of their gradients; 0 where a margin is 0."""
    norms = torch.linalg.vector_norm(gradients.flatten(2), DUAL_ORDER[norm], dim=2)
    return torch.where(margins == 0, margins, margins / norms)
