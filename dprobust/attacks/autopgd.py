"""Auto-PGD (Croce and Hein 2020, arXiv 2003.01690): gradient ascent with momentum whose step is halved, and its image
set back to the best one, where the loss has stopped to grow.

Step by step that of the authors' code (github.com/fra31/auto-attack), but for two things: an image leaves its batch
once its class is wrong, and in l2 a gradient is scaled before its norm is taken, so that a faded one still counts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.attacks.balls import NORMS, Ball
from dprobust.attacks.losses import DLR_CLASSES, LOSSES, OBJECTIVES, Objective, dlr_to, margin_to
from dprobust.attacks.search import Draws, Found, gradient_to, in_turn, targets
from dprobust.inference import check_choice, check_count, check_images, check_size, map_batches

MOMENTUM = 0.75
"""Share of a step that is new; the rest is the step before."""
RISING = 0.75
"""The step is halved if the loss has grown in no more than this share of the steps since the last checkpoint."""


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str = "linf",
    loss: str = "ce",
    steps: int = 100,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> Found:
    """Auto-PGD from random starts along one of `LOSSES`.

    x: float (N, C, H, W) in [0, 1]; y: int64 (N,); eps >= 0, in units of the pixel range, the radius of the ball in
    `norm`, linf or l2. An image that is wrong from the start is attacked as well. Raises ValueError on arguments that
    do not fit.
    """
    check_images(model, x, y)
    check_choice("loss", loss, LOSSES)
    _check(eps, norm, steps, restarts)
    draws = Draws(seed, len(x), torch.arange(len(x)))
    return untargeted(model, x, y, Ball(eps, norm), loss, steps, restarts, draws, batch_size)


def apgd_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str = "linf",
    classes: int = 9,
    steps: int = 100,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> Found:
    """Auto-PGD towards each of the likeliest other classes in turn, at most `classes` of them; any wrong class will do.

    It follows the targeted difference-of-logits ratio, which needs four classes; of a model with fewer the logit of the
    class aimed at less the true one's. Other arguments and errors as in `apgd`.
    """
    check_images(model, x, y)
    check_count("classes", classes)
    _check(eps, norm, steps, restarts)
    draws = Draws(seed, len(x), torch.arange(len(x)))
    return targeted(model, x, y, Ball(eps, norm), classes, steps, restarts, draws, batch_size)


def _check(eps: float, norm: str, steps: int, restarts: int) -> None:
    check_size("eps", eps)
    check_choice("norm", norm, NORMS)
    check_count("steps", steps)
    check_count("restarts", restarts)


def untargeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    loss: str,
    steps: int,
    restarts: int,
    draws: Draws,
    batch_size: int,
) -> Found:
    """`apgd`, unchecked."""

    def attempt(restart: int, rows: Tensor, drawn: Draws) -> Found:
        start = drawn.starts(ball, x[rows], "apgd", loss, restart)
        return _search(model, OBJECTIVES[loss], x[rows], y[rows], y[rows], start, ball, steps, batch_size)

    attempts = (lambda rows, drawn, r=r: attempt(r, rows, drawn) for r in range(restarts))
    return in_turn(x, attempts, draws)


def targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    classes: int,
    steps: int,
    restarts: int,
    draws: Draws,
    batch_size: int,
) -> Found:
    """`apgd_targeted`, unchecked."""
    aims = targets(model, x, y, classes, batch_size)

    def objective(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return (dlr_to if logits.shape[1] >= DLR_CLASSES else margin_to)(logits, y, target)

    def attempt(rank: int, restart: int, rows: Tensor, drawn: Draws) -> Found:
        start = drawn.starts(ball, x[rows], "apgd", "targeted", rank, restart)
        return _search(model, objective, x[rows], y[rows], aims[rows, rank], start, ball, steps, batch_size)

    attempts = (
        lambda rows, drawn, k=k, r=r: attempt(k, r, rows, drawn) for k in range(aims.shape[1]) for r in range(restarts)
    )
    return in_turn(x, attempts, draws)


def _search(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    start: Tensor,
    ball: Ball,
    steps: int,
    batch_size: int,
) -> Found:
    def batch(x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> Found:
        return climb(model, objective, x, y, target, start, ball, steps)

    return Found(*map_batches(model, batch, batch_size, x, y, target, start))


class _State(NamedTuple):
    """Of the images of a batch that are still right; all tensors have them first."""

    index: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    now: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    checked_loss: Tensor
    """The best loss at the last checkpoint."""
    rises: Tensor
    """Steps since the last checkpoint that have raised the loss."""
    step: Tensor
    halved: Tensor
    """Whether the step was halved at the last checkpoint."""


def climb(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    start: Tensor,
    ball: Ball,
    steps: int,
) -> Found:
    """One run of Auto-PGD of a batch, from given points. An image that is not broken comes back at its highest loss."""
    images, broken = start.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    window, shortest, shorter = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    gradient, logits = gradient_to(model, objective, start, y, target)
    loss = objective(logits, y, target)
    wrong = logits.argmax(1) != y
    broken |= wrong
    s = _State(
        index=torch.arange(len(x), device=x.device),
        x=x,
        y=y,
        target=target,
        now=start,
        before=start,
        gradient=gradient,
        # The original compares the first step's loss with 0, not with the start's.
        loss=torch.zeros_like(loss),
        best=start,
        best_gradient=gradient,
        best_loss=loss,
        checked_loss=loss,
        rises=torch.zeros_like(y),
        step=torch.full_like(loss, 2 * ball.eps)[:, None, None, None],
        halved=torch.ones_like(wrong),
    )
    since = 0
    for i in range(steps):
        if wrong.any():
            s, wrong = _State(*(values[~wrong] for values in s)), wrong[~wrong]
        if not len(s.index):
            break
        new = MOMENTUM if i else 1.0
        ahead = ball.project(s.now + s.step * ball.direction(s.gradient), s.x)
        moved = ball.project(s.now + (ahead - s.now) * new + (s.now - s.before) * (1 - new), s.x)
        if i + 1 < steps:
            gradient, logits = gradient_to(model, objective, moved, s.y, s.target)
        else:
            gradient, logits = s.gradient, model(moved)
        loss = objective(logits, s.y, s.target)
        wrong = logits.argmax(1) != s.y
        images[s.index[wrong]], broken[s.index[wrong]] = moved[wrong], True
        better = loss > s.best_loss
        s = s._replace(
            now=moved,
            before=s.now,
            gradient=gradient,
            loss=loss,
            rises=s.rises + (loss > s.loss),
            best=moved.where(_images(better), s.best),
            best_gradient=gradient.where(_images(better), s.best_gradient),
            best_loss=loss.where(better, s.best_loss),
        )
        since += 1
        if since == window:
            s, since, window = _checkpoint(s, window), 0, max(window - shorter, shortest)
    images[s.index[~wrong]] = s.best[~wrong]
    return Found(images, broken)


def _checkpoint(s: _State, window: int) -> _State:
    stuck = ~s.halved & (s.checked_loss >= s.best_loss)
    halve = (s.rises <= RISING * window) | stuck
    return s._replace(
        step=(s.step / 2).where(_images(halve), s.step),
        now=s.best.where(_images(halve), s.now),
        gradient=s.best_gradient.where(_images(halve), s.gradient),
        checked_loss=s.best_loss,
        rises=torch.zeros_like(s.rises),
        halved=halve,
    )


def _images(values: Tensor) -> Tensor:
    return values[:, None, None, None]
