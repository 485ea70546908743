"""Random changes of training images that leave their classes as they are.

One change an example and step keeps the accounting of DP-SGD as it is: an example still has one gradient a step.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING = 4
"""Pixels that `crop` pads with zeros on each side."""


def augment(images: Tensor, kinds: Sequence[str], random: torch.Generator) -> Tensor:
    """Change each image of a batch at random.

    Args:
        images: (N, C, H, W), of any type; or for "flip" alone (N, 2, F), features of an image and of its mirror image.
        kinds: keys of `KINDS`, applied in this order.
        random: a generator on the CPU, so that every device gets the same changes.
    """
    for kind in kinds:
        images = KINDS[kind](images, random)
    return images


def _flip(images: Tensor, random: torch.Generator) -> Tensor:
    """Left to right, half of the images."""
    flipped = torch.rand(len(images), generator=random) < 0.5
    if images.ndim == 3:
        return images[torch.arange(len(images)), flipped.long()]
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(-1), images)


def _crop(images: Tensor, random: torch.Generator) -> Tensor:
    """A window of the old size, anywhere in the image padded with zeros."""
    n, _, height, width = images.shape
    top, left = torch.randint(2 * PADDING + 1, (2, n), generator=random).to(images.device)
    windows = F.pad(images, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=images.device), :, top, left]


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {"flip": _flip, "crop": _crop}
"""Name -> function of images and generator."""
