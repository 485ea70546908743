"""The ball of radius eps around an image, in the linf or the l2 norm, cut to the pixel range [0, 1]."""

import torch
from torch import Tensor

NORMS = ("linf", "l2")
ROUND_OFF = 1e-6
"""What a float32 image may lie outside its ball: the last bits of a sum of two pixels, or of a norm."""


class Ball:
    """Balls of radius eps around images of one batch."""

    def __init__(self, eps: float, norm: str) -> None:
        self.eps, self.norm = eps, norm

    def project(self, images: Tensor, x: Tensor) -> Tensor:
        """The images moved into the balls around x: to the nearest point of the box in linf; along the radius, then
        to [0, 1], in l2."""
        if self.norm == "linf":
            return clip(images, x, self.eps)
        change = images - x
        return (x + unit(change) * length(change).clamp_max(self.eps)).clamp_(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Of the steepest ascent: the sign of a gradient, or the gradient at length 1 (0 where it is 0)."""
        if self.norm == "linf":
            return gradient.sign()
        # Scaled first: the squares of a gradient that has nearly faded would vanish, and the attack with them.
        largest = gradient.abs().amax((1, 2, 3), keepdim=True)
        return unit(gradient / largest.where(largest > 0, 1))

    def start(self, x: Tensor, drawn: Tensor) -> Tensor:
        """A random point on the ball's surface, cut to [0, 1].

        drawn: of x's shape, uniform in [-1, 1] (linf) or normal (l2), see `normal`.
        """
        largest = drawn.abs().amax((1, 2, 3), keepdim=True) + 1e-12
        scaled = drawn / largest if self.norm == "linf" else unit(drawn)
        return (x + self.eps * scaled).clamp_(0, 1)

    @property
    def normal(self) -> bool:
        """Whether random starts are drawn from a normal distribution."""
        return self.norm == "l2"

    def holds(self, images: Tensor, x: Tensor) -> Tensor:
        """bool (N,): the image is in its ball, but for `ROUND_OFF`, and in [0, 1]."""
        change = (images.double() - x.double()).flatten(1)
        distance = torch.linalg.vector_norm(change, torch.inf if self.norm == "linf" else 2, dim=1)
        pixels = images.flatten(1)
        return (distance <= self.eps + ROUND_OFF * max(1, self.eps)) & (pixels.amin(1) >= 0) & (pixels.amax(1) <= 1)


def clip(images: Tensor, x: Tensor, eps: float) -> Tensor:
    """The images clipped to the linf ball of radius eps around x and to [0, 1]."""
    # x + clip(images - x) rounds as Foolbox does, clip(images, x - eps, x + eps) does not. A last bit can
    # turn the sign of a gradient near zero, so that equality after many steps needs the same arithmetic.
    return (x + (images - x).clamp(-eps, eps)).clamp(0, 1)


def length(change: Tensor) -> Tensor:
    """l2 norm of each image, (N, 1, 1, 1)."""
    return change.square().sum((1, 2, 3), keepdim=True).sqrt_()


def unit(change: Tensor) -> Tensor:
    """Each image divided by its l2 norm."""
    return change / (length(change) + 1e-12)
