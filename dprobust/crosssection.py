"""Normal cross-sections of the decision regions around an image (Fig 1)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.distances import deepfool
from dprobust.errors import UserError
from dprobust.inference import check_count, classes, map_batches, predict


class CrossSection(NamedTuple):
    """Predicted classes on a square grid in the plane through an image."""

    offsets: Tensor
    """(R,): the coordinates along both axes, -half_width to half_width, in l2 units."""
    classes: Tensor
    """(R, R): row i, column j is the class at x + offsets[i] normal + offsets[j] tangent; uint8, int16 where there are
    more than 256 classes."""
    normal: Tensor
    """(C, H, W): unit vector from the image to its nearest decision boundary."""
    tangent: Tensor
    """(C, H, W): random unit vector orthogonal to the normal."""
    distance: float
    """l2 distance to the boundary along the normal, as DeepFool found it."""


def cross_section(
    model: nn.Module,
    x: Tensor,
    half_width: float,
    resolution: int,
    generator: torch.Generator,
    batch_size: int = 256,
) -> CrossSection:
    """Classes in the plane of the boundary normal (y in Fig 1) and a random orthogonal direction (x).

    x: one float image (C, H, W) in [0, 1], the centre of the square; half_width > 0 in l2 units; resolution:
    points a side, odd to hold the image itself. The normal is the direction of the l2 DeepFool perturbation
    out of the class the model gives to x, right or wrong (Fawzi et al. 2018). The tangent is a draw from
    `generator` less its part along the normal: equal generators give every model the same draw. Points of the
    plane are not clipped to [0, 1], which would bend it. Raises ValueError on arguments that do not fit,
    UserError where DeepFool finds no boundary, or the image has one pixel.
    """
    if not (math.isfinite(half_width) and half_width > 0):
        raise ValueError(f"half_width must be a finite number > 0, found {half_width}")
    check_count("resolution", resolution)
    if x.numel() < 2:
        raise UserError("an image of one pixel has no plane through it: leave out cross_sections")
    outcome = deepfool(model, x[None], predict(model, x[None]), "l2")
    if not outcome.fooled:
        raise UserError(
            "DeepFool finds no decision boundary around the image: the network gives it one class everywhere, or its "
            "logits are not finite, as after a training that diverged; choose a smaller lr, or leave out cross_sections"
        )
    normal = (outcome.images - x).flatten()
    normal /= normal.norm()
    draw = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    draw = draw.to(x.device).flatten()
    tangent = draw - (draw @ normal) * normal
    tangent /= tangent.norm()

    offsets = torch.linspace(-half_width, half_width, resolution, dtype=x.dtype, device=x.device)
    axes = torch.stack([normal, tangent])

    def cells(coordinates: Tensor) -> tuple[Tensor]:
        points = x.flatten().to(coordinates) + coordinates @ axes.to(coordinates)
        return (classes(model(points.view(-1, *x.shape))),)

    (grid,) = map_batches(model, cells, batch_size, torch.cartesian_prod(offsets, offsets))
    return CrossSection(
        offsets,
        grid.view(resolution, resolution),
        normal.view_as(x),
        tangent.view_as(x),
        outcome.distance.item(),
    )
