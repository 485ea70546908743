"""Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049): random search with squares, from the logits alone.

It needs no gradient, so that a model which only hides its gradients does not stand against it. The steps are those of
the authors' code in github.com/fra31/auto-attack with the schedule scaled to the number of queries, as in the paper,
but that a square may lie at every place of the image, as in the paper (the code leaves out the last one in each
direction). As there, all images get their squares at the same places, and signs of their own at the start and in l2.
"""

import math

import torch
from torch import Tensor, nn

from dprobust.attacks.balls import NORMS, Ball, length, unit
from dprobust.attacks.losses import LOSSES
from dprobust.attacks.search import Draws, Found
from dprobust.inference import at_rest, check_choice, check_count, check_images, check_size, home

SHARE = 0.8
"""Share of the pixels that the first squares cover."""
SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which that share is halved."""
LOSS = LOSSES["margin"]


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str = "linf",
    queries: int = 5000,
    seed: int = 0,
    batch_size: int = 256,
) -> Found:
    """Square Attack along the margin.

    x: float (N, C, H, W) in [0, 1]; y: int64 (N,); eps >= 0, in units of the pixel range, the radius of the ball in
    `norm`, linf or l2; queries >= 1: random changes tried, each a forward pass. Raises ValueError on arguments that do
    not fit.
    """
    check_images(model, x, y)
    check_size("eps", eps)
    check_choice("norm", norm, NORMS)
    check_count("queries", queries)
    check_count("batch_size", batch_size)
    draws = Draws(seed, len(x), torch.arange(len(x)))
    return search(model, x, y, Ball(eps, norm), queries, draws, batch_size)


def search(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, queries: int, draws: Draws, batch_size: int) -> Found:
    """`square`, unchecked. All images go through the queries side by side, and the ones broken make room."""
    device = home(model, x)
    x, y, back = x.to(device), y.to(device), x.device
    stream = draws.stream("square", ball.norm)
    propose = _linf if ball.norm == "linf" else _l2
    index = torch.arange(len(x), device=device)
    with at_rest(model), torch.no_grad():
        best = (_stripes if ball.norm == "linf" else _tiles)(x, ball, draws, stream)
        loss, wrong = _judge(model, best, y, batch_size)
        images, broken = best.clone(), wrong.clone()
        for query in range(queries):
            if wrong.any():
                keep = ~wrong
                index, x, y, best, loss = (values[keep] for values in (index, x, y, best, loss))
                draws = draws.of(keep.nonzero()[:, 0])
            if not len(index):
                break
            tried = propose(x, best, ball, _share(query, queries), draws, stream)
            found, wrong = _judge(model, tried, y, batch_size)
            better = (found > loss) | wrong
            loss = found.where(better, loss)
            best = tried.where(better[:, None, None, None], best)
            if wrong.any():
                images[index[wrong]] = tried[wrong]
                broken[index[wrong]] = True
        if not broken.all():
            images[index[~broken[index]]] = best[~broken[index]]
    return Found(images.to(back), broken.to(back))


def _judge(model: nn.Module, images: Tensor, y: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Margins of the images, and whether their class is wrong."""
    slices = math.ceil(len(images) / batch_size)
    logits = torch.cat([model(part) for part in images.tensor_split(slices)])
    return LOSS(logits, y), logits.argmax(1) != y


def _share(query: int, queries: int) -> float:
    """Share of the pixels that a square covers."""
    scaled = query * 10_000 // queries
    return SHARE / 2 ** sum(scaled > after for after in SCHEDULE)


def _side(share: float, x: Tensor, least: int) -> int:
    return max(round(math.sqrt(share * x.shape[2] * x.shape[3])), least)


def _place(x: Tensor, side: int, stream: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a square in the images."""
    rows, columns = (int(torch.rand(1, generator=stream) * (size - side + 1)) for size in x.shape[2:])
    return slice(rows, rows + side), slice(columns, columns + side)


def _signs(values: Tensor, x: Tensor) -> Tensor:
    return (2 * values - 1).sign().to(x)


def _stripes(x: Tensor, ball: Ball, draws: Draws, stream: torch.Generator) -> Tensor:
    """Vertical stripes of plus or minus eps."""
    signs = _signs(draws.rows(stream, (x.shape[1], 1, x.shape[3])), x)
    return (x + ball.eps * signs).clamp_(0, 1)


def _linf(x: Tensor, best: Tensor, ball: Ball, share: float, draws: Draws, stream: torch.Generator) -> Tensor:
    """A square moved to the other side of the ball, a sign a channel."""
    side = min(_side(share, x, 1), *x.shape[2:])
    rows, columns = _place(x, side, stream)
    signs = _signs(torch.rand(x.shape[1], 1, 1, generator=stream), x)
    tried = best.clone()
    part = tried[:, :, rows, columns] + 2 * ball.eps * signs
    tried[:, :, rows, columns] = ball.project(part, x[:, :, rows, columns])
    return tried


def _tiles(x: Tensor, ball: Ball, draws: Draws, stream: torch.Generator) -> Tensor:
    """A grid of bumps, five by five, each up or down."""
    height, width = x.shape[2:]
    side = max(min(height, width) // 5, 1)
    change, first = torch.zeros_like(x), max((height - 5 * side) // 2, 0)
    for row in range(first, height - side + 1, side):
        for column in range(first, width - side + 1, side):
            bump = _bump(side, stream).to(x)
            signs = _signs(draws.rows(stream, (x.shape[1], 1, 1)), x)
            change[:, :, row : row + side, column : column + side] += bump * signs
    return (x + unit(change) * ball.eps).clamp_(0, 1)


def _l2(x: Tensor, best: Tensor, ball: Ball, share: float, draws: Draws, stream: torch.Generator) -> Tensor:
    """A bump added in one square, with the length that another square, set to 0, and the ball leave for it."""
    side = _side(share, x, 3)
    side = min(side + 1 - side % 2, *x.shape[2:])
    here, there = _place(x, side, stream), _place(x, side, stream)
    change = best - x
    both = torch.zeros_like(change[:1])
    for rows, columns in (here, there):
        both[:, :, rows, columns] = 1
    free = (ball.eps**2 - length(change).square()).clamp_min(0) / x.shape[1]
    room = (free + (change * both).square().sum((2, 3), keepdim=True)).sqrt()
    old = change[:, :, here[0], here[1]]
    bump = _bump(side, stream).to(x)
    new = bump * _signs(draws.rows(stream, (x.shape[1], 1, 1)), x) + old / (1e-12 + _norm(old))
    new = new / (1e-12 + _norm(new)) * room
    change[:, :, there[0], there[1]] = 0
    change[:, :, here[0], here[1]] = new
    return (x + unit(change) * ball.eps).clamp_(0, 1)


def _norm(values: Tensor) -> Tensor:
    """Of each channel, (N, C, 1, 1)."""
    return values.square().sum((2, 3), keepdim=True).sqrt()


def _bump(side: int, stream: torch.Generator) -> Tensor:
    """(side, side), of length 1: a pyramid up in one half, one down in the other, upright or lying."""
    bump = torch.zeros(side, side)
    bump[: side // 2] = _pyramid(side // 2, side)
    bump[side // 2 :] = -_pyramid(side - side // 2, side)
    bump /= bump.square().sum().sqrt()
    return bump.T if torch.rand(1, generator=stream) > 0.5 else bump


def _pyramid(height: int, width: int) -> Tensor:
    """Squares around the middle, each ring lower than the one within, of length 1."""
    bump = torch.zeros(height, width)
    row, column = height // 2, width // 2
    for ring in range(max(height // 2, width // 2) + 1):
        rows = slice(max(row - ring, 0), min(row + ring + 1, height))
        columns = slice(max(column - ring, 0), min(column + ring + 1, width))
        bump[rows, columns] += 1 / (ring + 1) ** 2
    return bump / bump.square().sum().sqrt()
