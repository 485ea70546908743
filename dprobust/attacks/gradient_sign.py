"""Gradient-sign attacks in the linf ball around an image: FGSM (Figs 2, 3, 7) and PGD (Table 1, Fig 4).

All work in pixel space: images are clipped to [0, 1], and eps and alpha are in units of the full pixel range.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.attacks.balls import clip
from dprobust.attacks.losses import LOSSES, true_logit
from dprobust.inference import (
    check_choice,
    check_count,
    check_images,
    check_size,
    classes,
    input_gradient,
    map_batches,
)


class FgsmCurve(NamedTuple):
    """FGSM over a grid of eps, per image."""

    predicted: Tensor
    """(N, len(eps_grid)): class of the adversarial image, uint8; int16 where there are more than 256."""
    correct: Tensor
    """bool (N, len(eps_grid)): that class is still the right one."""
    gradient_norm: Tensor
    """float32 (N,): l2 norm of the loss gradient with respect to the clean image."""
    saturated: Tensor
    """bool (N,): softmax in float32 gives the true class of the clean image a probability of exactly 1."""
    zero_gradient: Tensor
    """bool (N,): every entry of the loss gradient is exactly 0, so that FGSM leaves the image as it is."""


class PgdRecord(NamedTuple):
    """What `pgd_record` has seen, per image."""

    predicted: Tensor
    """(N, len(steps)): class after each recorded step, uint8; int16 where there are more than 256."""
    loss: Tensor
    """float32 (N, len(steps)): the attacked loss there."""
    first: Tensor
    """int64 (N,): first step of any restart after which the class is wrong; 0 if it is at the start (the image itself,
    or a random one), the largest of the steps plus 1 if it never is."""
    images: Tensor
    """(N, C, H, W): after the last step, of x's dtype."""


class PgdIterations(NamedTuple):
    """Outcome of `pgd_iterations`, per image."""

    first: Tensor
    """int64 (N,): steps until the class is first wrong; 0 if it is from the start, steps + 1 if never."""
    predicted: Tensor
    """(N,): the class there, of an image never fooled the right one; uint8, int16 where there are more than 256."""
    loss: Tensor
    """float32 (N,): the attacked loss there, of an image never fooled after the last step."""
    images: Tensor
    """(N, C, H, W): the image there, of x's dtype."""


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float, loss: str = "ce", batch_size: int = 256) -> Tensor:
    """Adversarial images of the fast gradient sign method, clip(x + eps sign(grad loss), 0, 1).

    x: float (N, C, H, W) in [0, 1]; y: int64 (N,); eps >= 0. Returns images of x's shape, dtype and device.
    Raises ValueError on images, labels, eps or a loss that do not fit.
    """
    return pgd(model, x, y, eps, alpha=eps, steps=1, loss=loss, batch_size=batch_size)


def fgsm_curve(
    model: nn.Module, x: Tensor, y: Tensor, eps_grid: Sequence[float], loss: str = "ce", batch_size: int = 256
) -> FgsmCurve:
    """FGSM at each eps of a grid, from one gradient an image (Figs 2, 3, 7).

    Arguments as in `fgsm`. Accuracy against eps is `correct` averaged over N, at eps 0 the clean one.
    """
    check_images(model, x, y)
    check_choice("loss", loss, LOSSES)
    if len(eps_grid) == 0:
        raise ValueError("eps_grid must hold at least one eps, found none")
    for eps in eps_grid:
        check_size("eps", eps)

    def curve(x: Tensor, y: Tensor) -> FgsmCurve:
        gradient, logits = input_gradient(model, LOSSES[loss], x, y)
        direction = gradient.sign()
        predicted = torch.stack([classes(model(clip(x + eps * direction, x, eps))) for eps in eps_grid], 1)
        # In float64: the squares of a small gradient would vanish.
        norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)
        return FgsmCurve(
            predicted,
            predicted == y[:, None],
            norm.float(),
            true_logit(logits.float().softmax(1), y) == 1,
            (direction == 0).flatten(1).all(1),
        )

    return FgsmCurve(*map_batches(model, curve, batch_size, x, y))


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    alpha: float,
    steps: int,
    loss: str = "ce",
    random_start: bool = False,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Adversarial images of projected gradient ascent: steps of alpha sign(grad loss), each projected to the
    linf ball of radius eps around x and to [0, 1].

    x: float (N, C, H, W) in [0, 1]; y: int64 (N,); eps, alpha >= 0; steps >= 1. The start is x (the paper)
    or, with `random_start`, uniform in the ball, drawn from `generator`. Returns images of x's shape, dtype
    and device: those after the last step, whether or not an earlier one was adversarial. Raises ValueError on
    arguments that do not fit.
    """
    _check_pgd(model, x, y, eps, alpha, steps, loss)
    start = _random_start(x, eps, generator) if random_start else x

    def images(x: Tensor, y: Tensor, start: Tensor) -> tuple[Tensor]:
        return (_ascend(model, x, y, start, eps, alpha, steps, loss)[0],)

    return map_batches(model, images, batch_size, x, y, start)[0]


def pgd_record(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    alpha: float,
    steps: Sequence[int],
    loss: str = "ce",
    restarts: int = 1,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> PgdRecord:
    """What `pgd` does to each image, seen after some numbers of steps of one run to the largest of them.

    x, y, eps, alpha, loss as in `pgd`; steps: each >= 0, the largest >= 1, where 0 is the start. Without a generator
    the start is x. With one it is uniform in the ball, drawn anew for each of the restarts, and what is told of an
    image at a recorded step is of its worst restart there: one that has it wrong if any has, and among those the one of
    the highest loss. An image is thus right only where every restart leaves it right. Raises ValueError on arguments
    that do not fit.
    """
    last = max(steps, default=0)
    _check_pgd(model, x, y, eps, alpha, last, loss)
    check_count("restarts", restarts)
    if min(steps) < 0:
        raise ValueError(f"steps must be whole numbers >= 0, found {min(steps)}")
    if restarts > 1 and generator is None:
        raise ValueError("restarts need a generator for their random starts, found none")

    def record(x: Tensor, y: Tensor, start: Tensor) -> PgdRecord:
        images, before = _ascend(model, x, y, start, eps, alpha, last, loss)
        logits = torch.stack([*before, model(images)], 1)
        predicted = classes(logits)
        first = first_adversarial_step(predicted == y[:, None])
        seen = logits[:, steps]
        values = LOSSES[loss](seen.flatten(0, 1), y.repeat_interleave(len(steps))).view(seen.shape[:2])
        return PgdRecord(predicted[:, steps], values.float(), first, images)

    worst = None
    for _ in range(restarts):
        start = x if generator is None else _random_start(x, eps, generator)
        found = PgdRecord(*map_batches(model, record, batch_size, x, y, start))
        worst = found if worst is None else _worse(worst, found, y, int(torch.tensor(steps).argmax()))
    return worst


def _worse(one: PgdRecord, other: PgdRecord, y: Tensor, last: int) -> PgdRecord:
    """Of two restarts the worse for each image and recorded step; its images at the last step, the column `last`."""
    fooled, also = one.predicted != y[:, None], other.predicted != y[:, None]
    take = (also & ~fooled) | ((also == fooled) & (other.loss > one.loss))
    return PgdRecord(
        other.predicted.where(take, one.predicted),
        other.loss.where(take, one.loss),
        torch.minimum(one.first, other.first),
        other.images.where(take[:, last, None, None, None], one.images),
    )


def first_adversarial_step(correct: Tensor) -> Tensor:
    """First wrong column of each row, a column a step from 0 to T, int64 (N,): 0 if wrong at the start, T + 1 if never
    fooled in the T steps recorded."""
    never = correct.new_zeros(len(correct), 1)
    return torch.cat([correct, never], 1).byte().argmin(1)


def pgd_iterations(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    alpha: float,
    steps: int,
    loss: str = "ce",
    batch_size: int = 256,
) -> PgdIterations:
    """PGD steps from x to the first adversarial class (Fig 4). Arguments as in `pgd`.

    `first` is the value of `pgd_record` for less work: an image leaves its batch once it is fooled.
    """
    _check_pgd(model, x, y, eps, alpha, steps, loss)

    def iterations(x: Tensor, y: Tensor) -> PgdIterations:
        first = torch.full_like(y, steps + 1)
        index = torch.arange(len(y), device=y.device)
        images, final = x, x.clone()
        for step in range(steps + 1):
            if step < steps:
                gradient, logits = input_gradient(model, LOSSES[loss], images, y)
            else:
                logits = model(images)
            predicted = classes(logits)
            if step == 0:
                reached = predicted.clone()
                values = torch.empty(len(y), device=y.device)
            right = predicted == y
            first[index[~right]] = step
            done = ~right if step < steps else torch.ones_like(right)
            at = index[done]
            reached[at], final[at] = predicted[done], images[done]
            values[at] = LOSSES[loss](logits[done], y[done]).float()
            if done.all():
                break
            x, y, images, index, gradient = (t[right] for t in (x, y, images, index, gradient))
            images = clip(images + alpha * gradient.sign(), x, eps)
        return PgdIterations(first, reached, values, final)

    return PgdIterations(*map_batches(model, iterations, batch_size, x, y))


def _ascend(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, eps: float, alpha: float, steps: int, loss: str
) -> tuple[Tensor, list[Tensor]]:
    """Images after the last step, and the logits before each step."""
    images, before = start, []
    for _ in range(steps):
        gradient, logits = input_gradient(model, LOSSES[loss], images, y)
        before.append(logits)
        images = clip(images + alpha * gradient.sign(), x, eps)
    return images, before


def _random_start(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        raise ValueError("a random start needs a generator, found none")
    noise = torch.empty(x.shape, dtype=x.dtype, device=generator.device)
    return clip(x + noise.uniform_(-eps, eps, generator=generator).to(x.device), x, eps)


def _check_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int, loss: str) -> None:
    check_images(model, x, y)
    check_choice("loss", loss, LOSSES)
    check_size("eps", eps)
    check_size("alpha", alpha)
    check_count("steps", steps)
