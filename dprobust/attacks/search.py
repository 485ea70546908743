"""What the attacks that stop at the first success share: their outcome, their random starts, attempts in turn, and
projected gradient ascent.

A random start belongs to an image's place among all images, not to a batch: an image meets the same starts whichever
images have fallen before, and whatever the size of the batches.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.attacks.balls import Ball
from dprobust.attacks.losses import Objective, without_true
from dprobust.inference import input_gradient, map_batches
from dprobust.seeds import generator

BLOCK = 256
"""Images whose random starts are drawn at a time."""


class Found(NamedTuple):
    """Outcome of an attack, per image."""

    images: Tensor
    """(N, C, H, W), of x's dtype: in the ball and in [0, 1]; the adversarial image, where there is one, else the last
    one tried (of Auto-PGD and Square Attack the best)."""
    broken: Tensor
    """bool (N,): the class of that image is wrong."""


class Draws:
    """Random numbers for images, a stream a name.

    Args:
        seed: of all streams.
        total: number of images.
        places: int64 (n,), ascending: those among them that are still attacked.
    """

    def __init__(self, seed: int, total: int, places: Tensor) -> None:
        self.seed, self.total, self.places = seed, total, places.cpu()

    def of(self, rows: Tensor) -> "Draws":
        """Those of some of the images: places among the ones still attacked, ascending."""
        return Draws(self.seed, self.total, self.places[rows.cpu()])

    def stream(self, *name: object) -> torch.Generator:
        """A generator on the CPU."""
        return generator(self.seed, *name)

    def rows(self, stream: torch.Generator, shape: Sequence[int], normal: bool = False) -> Tensor:
        """float32 (n, *shape), uniform in [0, 1) or normal."""
        parts = []
        for first in range(0, self.total, BLOCK):
            size = min(BLOCK, self.total - first)
            block = (torch.randn if normal else torch.rand)((size, *shape), generator=stream)
            here = self.places[(self.places >= first) & (self.places < first + size)] - first
            parts.append(block[here])
        return torch.cat(parts)

    def starts(self, ball: Ball, x: Tensor, *name: object) -> Tensor:
        """Random points on the surface of the balls around x (n, C, H, W), of the stream of that name."""
        drawn = self.rows(self.stream(*name), x.shape[1:], ball.normal)
        return ball.start(x, (drawn if ball.normal else 2 * drawn - 1).to(x))


def in_turn(x: Tensor, attempts: Iterable, draws: Draws) -> Found:
    """Attempts one after the other, each on the images that the ones before have not broken.

    attempts: functions of places (n,) among the images and of their draws, which return what they `Found`.
    """
    images, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    left = torch.arange(len(x), device=x.device)
    for attempt in attempts:
        found = attempt(left, draws.of(left))
        images[left] = found.images
        broken[left] = found.broken
        left = left[~found.broken]
        if not len(left):
            break
    return Found(images, broken)


def targets(model: nn.Module, x: Tensor, y: Tensor, count: int, batch_size: int) -> Tensor:
    """The `count` most likely classes but the true one, (N, min(count, K - 1)), the likeliest first."""

    def likeliest(x: Tensor, y: Tensor) -> tuple[Tensor]:
        logits = model(x)
        return (without_true(logits, y).argsort(1, descending=True)[:, : min(count, logits.shape[1] - 1)],)

    return map_batches(model, likeliest, batch_size, x, y)[0]


def ascend(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    start: Tensor,
    ball: Ball,
    alpha: float,
    steps: int,
) -> Found:
    """Projected gradient ascent of a batch in steps of length alpha; an image leaves once its class is wrong."""
    images, broken = start.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    index, now = torch.arange(len(x), device=x.device), start
    for step in range(steps + 1):
        if step < steps:
            gradient, logits = gradient_to(model, objective, now, y, target)
        else:
            gradient, logits = now, model(now)
        wrong = logits.argmax(1) != y
        images[index] = now
        broken[index] = wrong
        if wrong.any():
            index, x, y, target, now, gradient = (t[~wrong] for t in (index, x, y, target, now, gradient))
        if not len(index) or step == steps:
            break
        now = ball.project(now + alpha * ball.direction(gradient), x)
    return Found(images, broken)


def gradient_to(model: nn.Module, objective: Objective, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """As `input_gradient`, of an objective that may aim at a class."""
    return input_gradient(model, lambda logits, y: objective(logits, y, target), x, y)
