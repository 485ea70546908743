"""Gradient-sign attacks in the linf ball around an image: FGSM (Figs 2, 3, 7) and PGD (Table 1, Fig 4).

All work in pixel space: images are clipped to [0, 1], and eps and alpha are in units of the full pixel range.
Each attack maximises one of three losses, `LOSSES`:

* `ce`: the cross-entropy as PyTorch computes it in the images' precision, which is the paper's. Once float32
  softmax rounds the true class to 1, its gradient lacks the true-class term and FGSM overstates robustness;
* `ce_stable`: the same loss written so that this term stays, log(1 + exp(log-odds against the true class));
* `margin`: the largest other logit minus the true one. Its gradient does not fade with confidence.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dprobust.inference import (
    check_choice,
    check_count,
    check_images,
    check_size,
    input_gradient,
    map_batches,
)


def log_odds_against(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 - p_y) / p_y) of the softmax probabilities (N,), without forming 1 - p_y, which rounds to 0."""
    return torch.logsumexp(_without_true(logits, y), 1) - _true(logits, y)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _stable_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -F.logsigmoid(-log_odds_against(logits, y))


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    return _without_true(logits, y).max(1).values - _true(logits, y)


def _true(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def _without_true(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y[:, None], -torch.inf)


Loss = Callable[[Tensor, Tensor], Tensor]
"""Per-example loss (N,) of logits (N, K) and labels (N,)."""

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"ce": _cross_entropy, "ce_stable": _stable_cross_entropy, "margin": _margin}
)


class FgsmCurve(NamedTuple):
    """FGSM over a grid of eps, per image."""

    correct: Tensor
    """bool (N, len(eps_grid)): the prediction on the adversarial image is still right."""
    saturated: Tensor
    """bool (N,): softmax in float32 gives the true class of the clean image a probability of exactly 1."""
    zero_gradient: Tensor
    """bool (N,): every entry of the loss gradient is exactly 0, so that FGSM leaves the image as it is."""


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
        correct = [model(_project(x + eps * direction, x, eps)).argmax(1) == y for eps in eps_grid]
        return FgsmCurve(
            torch.stack(correct, 1),
            _true(logits.float().softmax(1), y) == 1,
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


def pgd_trajectory(
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
    """Whether each image is classified right after each step of `pgd` (same arguments): bool (N, steps + 1).

    Column t is the state at step t, column 0 the start. One run to 40 steps thus holds the accuracy at 30 and
    at 40 (Table 1), and by `first_adversarial_step` the iterations to the first adversarial class (Fig 4).
    """
    _check_pgd(model, x, y, eps, alpha, steps, loss)
    start = _random_start(x, eps, generator) if random_start else x

    def trajectory(x: Tensor, y: Tensor, start: Tensor) -> tuple[Tensor]:
        images, correct = _ascend(model, x, y, start, eps, alpha, steps, loss)
        return (torch.stack([*correct, model(images).argmax(1) == y], 1),)

    return map_batches(model, trajectory, batch_size, x, y, start)[0]


def pgd_worst_case(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    alpha: float,
    steps: int,
    restarts: int,
    generator: torch.Generator,
    loss: str = "ce",
    batch_size: int = 256,
) -> Tensor:
    """`pgd_trajectory` from several random starts: right only where every restart is, bool (N, steps + 1)."""
    check_count("restarts", restarts)
    runs = (pgd_trajectory(model, x, y, eps, alpha, steps, loss, True, generator, batch_size) for _ in range(restarts))
    correct = next(runs)
    for run in runs:
        correct &= run
    return correct


def first_adversarial_step(correct: Tensor) -> Tensor:
    """First wrong column of each row of `pgd_trajectory`, int64 (N,): 0 if wrong at the start, T + 1 if never
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
) -> Tensor:
    """PGD steps from x to the first adversarial class (Fig 4), int64 (N,): 0 if already wrong, steps + 1 if
    never fooled. Arguments as in `pgd`.

    The value of `first_adversarial_step` for less work: an image leaves its batch once it is fooled.
    """
    _check_pgd(model, x, y, eps, alpha, steps, loss)

    def iterations(x: Tensor, y: Tensor) -> tuple[Tensor]:
        first = torch.full_like(y, steps + 1)
        index = torch.arange(len(y), device=y.device)
        images = x
        for step in range(steps + 1):
            gradient, logits = input_gradient(model, LOSSES[loss], images, y)
            right = logits.argmax(1) == y
            first[index[~right]] = step
            if not right.any():
                break
            x, y, images, index, gradient = (t[right] for t in (x, y, images, index, gradient))
            images = _project(images + alpha * gradient.sign(), x, eps)
        return (first,)

    return map_batches(model, iterations, batch_size, x, y)[0]


def _ascend(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, eps: float, alpha: float, steps: int, loss: str
) -> tuple[Tensor, list[Tensor]]:
    """Images after the last step, and for each step whether the prediction before it was right."""
    images, correct = start, []
    for _ in range(steps):
        gradient, logits = input_gradient(model, LOSSES[loss], images, y)
        correct.append(logits.argmax(1) == y)
        images = _project(images + alpha * gradient.sign(), x, eps)
    return images, correct


def _project(images: Tensor, x: Tensor, eps: float) -> Tensor:
    # x + clip(images - x) rounds as Foolbox does, clip(images, x - eps, x + eps) does not. A last bit can
    # turn the sign of a gradient near zero, so that equality after many steps needs the same arithmetic.
    return (x + (images - x).clamp(-eps, eps)).clamp(0, 1)


def _random_start(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        raise ValueError("a random start needs a generator, found none")
    noise = torch.empty(x.shape, dtype=x.dtype, device=generator.device)
    return _project(x + noise.uniform_(-eps, eps, generator=generator).to(x.device), x, eps)


def _check_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int, loss: str) -> None:
    check_images(model, x, y)
    check_choice("loss", loss, LOSSES)
    check_size("eps", eps)
    check_size("alpha", alpha)
    check_count("steps", steps)
