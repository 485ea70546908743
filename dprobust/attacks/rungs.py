"""The ladder: attacks from cheap to strong, each on the images that the ones before have left right.

What is left at the top is the accuracy in the worst case over all of them, image by image, and so an upper bound on
the accuracy against any attacker. The strong rungs are those of AutoAttack (Croce and Hein 2020, arXiv 2003.01690)
but for FAB, with PGD along losses that confidence does not silence below them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.attacks import autopgd, squares
from dprobust.attacks.balls import NORMS, Ball
from dprobust.attacks.losses import LOSSES, OBJECTIVES, Objective, margin_to
from dprobust.attacks.search import Draws, Found, ascend, in_turn, targets
from dprobust.inference import check_choice, check_count, check_images, check_size, map_batches

CLEAN = "clean"
"""The step below the first rung: images that are wrong as they are."""
PAPER_ALPHA = 0.01


class Budget(NamedTuple):
    """What the rungs may spend on an image."""

    alpha: float | None = None
    """Size of a step of rung pgd; None: 0.01 in linf, the paper's, and 2.5 eps / steps in l2. The other rungs of PGD
    take the latter in both norms."""
    pgd_steps: int = 40
    """Steps of each run of PGD."""
    pgd_restarts: int = 1
    """Runs along the margin and towards each class: the first from the image, the others from random points."""
    classes: int = 9
    """Other classes that the targeted rungs aim at, at most; the likeliest first."""
    apgd_steps: int = 100
    """Steps of each run of Auto-PGD."""
    apgd_restarts: int = 1
    """Runs of Auto-PGD along each loss and towards each class, all from random points."""
    square_queries: int = 5000
    """Random changes that Square Attack tries."""
    near: float = 0.0
    """Images that no rung breaks, but that one brings to a margin of at most this share of the one without attack, meet
    all rungs once more with what `STANDARD` spends; 0: none do. The margin: the true logit less the largest other."""


STANDARD = Budget()
FAST = Budget(classes=2, apgd_steps=15, square_queries=200, near=0.1)
BUDGETS: Mapping[str, Budget] = MappingProxyType({"full": STANDARD, "fast": FAST})
"""Budgets by name. full: what AutoAttack spends on Auto-PGD and Square Attack, and towards each of up to nine classes;
fast: a small part of that, and all of it for images that this part has brought near a break. `benchmarks/attacks.py`
measures what it saves and what it misses."""


class Ladder(NamedTuple):
    """Outcome of `ladder`, per image."""

    rungs: tuple[str, ...]
    """"clean" and the rungs, in the order they were climbed."""
    broken_by: Tensor
    """int8 (N,): place in `rungs` of the one that broke the image, be it in the second climb that `Budget.near` gives;
    0 if it is wrong as it is, -1 if none did."""
    images: Tensor | None
    """(N, C, H, W), of x's dtype, on x's device, if asked for: the adversarial image, where there is one; elsewhere the
    image itself."""
    seconds: tuple[float, ...]
    """Wall time of each of `rungs`, that of "clean" for the predictions."""

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Share of the images that are right after each of `rungs`."""
        left = [(self.broken_by < 0) | (self.broken_by > place) for place in range(len(self.rungs))]
        return tuple(right.double().mean().item() for right in left)


class Task(NamedTuple):
    """What a rung is to do beside model, images and labels."""

    ball: Ball
    budget: Budget
    draws: Draws
    batch_size: int


Rung = Callable[[nn.Module, Tensor, Tensor, Task], Found]


def _fgsm(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
    return _pgd(model, OBJECTIVES["ce"], x, y, y, x, task, task.ball.eps, 1)


def _paper(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
    alpha = task.budget.alpha
    if alpha is None:
        alpha = PAPER_ALPHA if task.ball.norm == "linf" else _alpha(task)
    return _pgd(model, OBJECTIVES["ce"], x, y, y, x, task, alpha, task.budget.pgd_steps)


def _margin(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
    return _restarted(model, OBJECTIVES["margin"], x, y, y[:, None], task, "margin")


def _targeted(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
    aims = targets(model, x, y, task.budget.classes, task.batch_size)
    return _restarted(model, margin_to, x, y, aims, task, "targeted")


def _apgd(loss: str) -> Rung:
    def rung(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
        steps, restarts = task.budget.apgd_steps, task.budget.apgd_restarts
        return autopgd.untargeted(model, x, y, task.ball, loss, steps, restarts, task.draws, task.batch_size)

    return rung


def _apgd_targeted(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
    classes, steps, restarts = task.budget.classes, task.budget.apgd_steps, task.budget.apgd_restarts
    return autopgd.targeted(model, x, y, task.ball, classes, steps, restarts, task.draws, task.batch_size)


def _square(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Found:
    queries = task.budget.square_queries
    return squares.search(model, x, y, task.ball, queries, task.draws, task.batch_size)


RUNGS: Mapping[str, Rung] = MappingProxyType(
    {
        "fgsm": _fgsm,
        "pgd": _paper,
        "pgd_margin": _margin,
        "pgd_targeted": _targeted,
        "apgd_ce": _apgd("ce"),
        "apgd_ce_stable": _apgd("ce_stable"),
        "apgd_targeted": _apgd_targeted,
        "square": _square,
    }
)
"""Attacks from cheap to dear. fgsm: one step of length eps along float32 cross-entropy, from the image; pgd: the
paper's steps along it; pgd_margin, pgd_targeted: steps along the margin, and towards each of the likeliest classes by
logit differences; apgd_ce, apgd_ce_stable, apgd_targeted: `apgd` and `apgd_targeted`; square: `square`. In linf steps
follow the gradient's sign, in l2 the gradient. An image counts as broken if it is wrong after any step."""


def robust_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str = "linf",
    rungs: Sequence[str] = tuple(RUNGS),
    budget: Budget | str = STANDARD,
    seed: int = 0,
    batch_size: int = 256,
) -> float:
    """Share of the images that are right, and that no attack of the ladder makes wrong. Arguments as in `ladder`."""
    return ladder(model, x, y, eps, norm, rungs, budget, seed, batch_size).accuracy[-1]


def ladder(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str = "linf",
    rungs: Sequence[str] = tuple(RUNGS),
    budget: Budget | str = STANDARD,
    seed: int = 0,
    batch_size: int = 256,
    keep_images: bool = False,
) -> Ladder:
    """Which attack breaks each image, tried from the first to the last.

    A break counts only if the final image, in a forward pass of its own, has a wrong class, and lies in the ball and
    in [0, 1]; float32 round-off may take it out of the ball by 1e-6 (1e-6 eps, where eps is above 1).

    Args:
        model: maps float images (N, C, H, W) in [0, 1] to logits (N, K), K >= 2. Deterministic: against one that draws
            random numbers, as against one that removes gradients in all but name, more is needed (expectation over
            transformations, an attack of its own).
        x: float (N, C, H, W) in [0, 1]. y: int64 (N,).
        eps: radius of the ball >= 0, in units of the pixel range.
        norm: linf or l2.
        rungs: keys of `RUNGS`, in the order to climb them.
        budget: steps, restarts, classes and queries, or a name in `BUDGETS`.
        seed: of the random starts and of Square Attack; a rung draws the same for an image whichever rungs come before.
        batch_size: images in a forward pass, at most.
        keep_images: return the adversarial images.

    Raises:
        ValueError: arguments that do not fit.
    """
    check_images(model, x, y)
    check_size("eps", eps)
    check_choice("norm", norm, NORMS)
    if isinstance(budget, str):
        check_choice("budget", budget, BUDGETS)
        budget = BUDGETS[budget]
    _check_rungs(rungs, budget)
    check_count("batch_size", batch_size)
    start = time.perf_counter()
    ball, draws = Ball(eps, norm), Draws(seed, len(x), torch.arange(len(x)))
    margins = _margins(model, x, y, batch_size)
    nearest = margins.clone()
    broken_by = torch.full_like(y, -1, dtype=torch.int8)
    broken_by[_wrong(model, x, y, batch_size)] = 0
    images = x.clone() if keep_images else None
    seconds = [time.perf_counter() - start] + [0.0] * len(rungs)

    def climb(budget: Budget, chosen: Tensor) -> None:
        for place, rung in enumerate(rungs, 1):
            start = time.perf_counter()
            left = ((broken_by < 0) & chosen).nonzero()[:, 0]
            if len(left):
                found = RUNGS[rung](model, x[left], y[left], Task(ball, budget, draws.of(left), batch_size))
                places, tried = left[found.broken], found.images[found.broken]
                real = _real(model, tried, x[places], y[places], ball, batch_size)
                broken_by[places[real]] = place
                if images is not None:
                    images[places[real]] = tried[real]
                if budget.near:
                    nearest[left] = nearest[left].minimum(_margins(model, found.images, y[left], batch_size))
            seconds[place] += time.perf_counter() - start

    climb(budget, broken_by < 0)
    if budget.near:
        climb(STANDARD._replace(alpha=budget.alpha), nearest <= budget.near * margins)
    return Ladder((CLEAN, *rungs), broken_by, images, tuple(seconds))


def _check_rungs(rungs: Sequence[str], budget: Budget) -> None:
    if isinstance(rungs, str) or not len(rungs):
        raise ValueError(f"rungs must be a list of at least one of {', '.join(RUNGS)}, found {rungs!r}")
    for i, rung in enumerate(rungs):
        check_choice("rungs", rung, RUNGS)
        if rung in rungs[:i]:
            raise ValueError(f"rungs must be different ones, found {rung} twice")
    for name, value in budget._asdict().items():
        if name not in ("alpha", "near"):
            check_count(name, value)
        elif value is not None:
            check_size(name, value)


def _wrong(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    return map_batches(model, lambda x, y: (model(x).argmax(1) != y,), batch_size, x, y)[0]


def _margins(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    return map_batches(model, lambda x, y: (-LOSSES["margin"](model(x), y),), batch_size, x, y)[0]


def _real(model: nn.Module, images: Tensor, x: Tensor, y: Tensor, ball: Ball, batch_size: int) -> Tensor:
    """bool (N,): the image is what a break is claimed to be."""
    if not len(images):
        return torch.zeros(0, dtype=torch.bool, device=x.device)
    return _wrong(model, images, y, batch_size) & ball.holds(images, x)


def _alpha(task: Task) -> float:
    return 2.5 * task.ball.eps / task.budget.pgd_steps


def _pgd(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    start: Tensor,
    task: Task,
    alpha: float,
    steps: int,
) -> Found:
    def batch(x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> Found:
        return ascend(model, objective, x, y, target, start, task.ball, alpha, steps)

    return Found(*map_batches(model, batch, task.batch_size, x, y, target, start))


def _restarted(
    model: nn.Module, objective: Objective, x: Tensor, y: Tensor, aims: Tensor, task: Task, name: str
) -> Found:
    """PGD towards each column of `aims` in turn, from the image and from random points."""
    alpha, steps = _alpha(task), task.budget.pgd_steps

    def attempt(rank: int, restart: int, rows: Tensor, drawn: Draws) -> Found:
        start = drawn.starts(task.ball, x[rows], "pgd", name, rank, restart) if restart else x[rows]
        return _pgd(model, objective, x[rows], y[rows], aims[rows, rank], start, task, alpha, steps)

    # All classes once before any a second time.
    turns = [(k, r) for r in range(task.budget.pgd_restarts) for k in range(aims.shape[1])]
    return in_turn(x, (lambda rows, drawn, k=k, r=r: attempt(k, r, rows, drawn) for k, r in turns), task.draws)
