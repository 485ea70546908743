"""Slopes of a linear function above a maximum max(x_1, ..., x_K) or max(0, x_1, ..., x_K), near the lowest."""

import torch
from torch import Tensor

STEPS, FIRST, LAST = 30, 0.3, 0.003
"""Subgradient steps, and the lengths of the first and of the last."""


def slopes(vectors: Tensor, middles: Tensor, lows: Tensor, highs: Tensor, floor: bool, steps: int = STEPS) -> Tensor:
    """(M, K): of M windows, lambda in [0, 1] for which sum_j lambda_j x_j + c is low in the middle of the box, where
    c is the largest x_i - sum_j lambda_j x_j; by subgradients from the best of a few starts.

    A member is taken for x_j = middles_j + sum_f vectors_jf t_f + a remainder, |t| <= 1: vectors (M, K, F), middles
    (M, K); the remainder is what its bounds lows and highs (M, K) leave. What is found is a choice: whether it bounds
    is not asked here.
    """
    v, m, low, high = (t.float() for t in (vectors, middles, lows, highs))
    gap = ((high - low) / 2 - v.abs().sum(2)).clamp_min(0)
    each = torch.eye(v.shape[1])
    base, all_v, all_m = low.amax(1), v, m
    if floor:
        each = torch.cat([each, torch.zeros_like(each[:1])])
        all_v, all_m = torch.cat([v, torch.zeros_like(v[:, :1])], 1), torch.cat([m, torch.zeros_like(m[:, :1])], 1)
        base = base.clamp_min(0)
    rows = torch.arange(len(v))

    def height(slope: Tensor) -> tuple[Tensor, Tensor]:
        """Of the bound in the middle of the box (M,), and a subgradient (M, K)."""
        rest, left = all_v - torch.einsum("mk,mkf->mf", slope, v)[:, None], each - slope[:, None]
        supremum = all_m + rest.abs().sum(2) + (left.abs() * gap[:, None]).sum(2)
        value, i = supremum.max(1)  # sum_j lambda_j middles_j cancels
        return value, -torch.einsum("mf,mkf->mk", rest[rows, i].sign(), v) - left[rows, i].sign() * gap

    chord = ((high - base[:, None]) / (high - low).clamp_min(1e-20)).clamp(0, 1)
    one = torch.zeros_like(m).scatter_(1, m.argmax(1, keepdim=True), 1.0)
    starts = [chord * one, chord / chord.sum(1, keepdim=True).clamp_min(1), torch.zeros_like(m)]
    value, gradient = height(starts[0])
    slope = starts[0]
    for start in starts[1:]:
        other, its = height(start)
        better = other < value
        value, slope = torch.where(better, other, value), torch.where(better[:, None], start, slope)
        gradient = torch.where(better[:, None], its, gradient)
    best = slope
    for step in range(steps):
        size = FIRST * (LAST / FIRST) ** (step / max(steps - 1, 1))
        slope = (slope - size * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-20)).clamp(0, 1)
        other, gradient = height(slope)
        better = other < value
        value, best = torch.where(better, other, value), torch.where(better[:, None], slope, best)
    return best.double()
