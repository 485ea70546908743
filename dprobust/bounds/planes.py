"""Slopes of a linear function above a maximum max(x_1, ..., x_K) or max(0, x_1, ..., x_K), near the lowest."""

import torch
from torch import Tensor

STEPS = 30


def slopes(vectors: Tensor, middles: Tensor, lows: Tensor, highs: Tensor, floor: bool, steps: int = STEPS) -> Tensor:
    """(M, K): of M windows, lambda in [0, 1] for which sum_j lambda_j x_j + c is low in the middle of the box, where
    c is the largest x_i - sum_j lambda_j x_j; by subgradients from the best of a few starts.

    A member is taken for x_j = middles_j + sum_f vectors_jf t_f + a remainder, |t| <= 1: vectors (M, K, F), middles
    (M, K); the remainder is what its bounds lows and highs (M, K) leave. What is found is a choice: whether it bounds
    is not asked here.
    """
    v, m = vectors.float(), middles.float()
    gap = ((highs - lows).float() / 2 - v.abs().sum(2)).clamp_min(0)
    count = v.shape[1]
    eye = torch.eye(count)
    if floor:
        eye = torch.cat([eye, torch.zeros(1, count)])
        v_all = torch.cat([v, torch.zeros_like(v[:, :1])], 1)
        m_all = torch.cat([m, torch.zeros_like(m[:, :1])], 1)
    else:
        v_all, m_all = v, m

    def height(slope: Tensor) -> tuple[Tensor, Tensor]:
        s, at = torch.einsum("mk,mkf->mf", slope, v), (slope * m).sum(1)
        e = v_all - s[:, None]
        left = eye - slope[:, None]
        sup = m_all - at[:, None] + e.abs().sum(2) + (left.abs() * gap[:, None]).sum(2)
        worst, i = sup.max(1)
        rows = torch.arange(len(v))
        gradient = -torch.einsum("mf,mkf->mk", e[rows, i].sign(), v) - left[rows, i].sign() * gap
        return at + worst, gradient

    low, high = lows.float(), highs.float()
    base = low.amax(1).clamp_min(0) if floor else low.amax(1)
    chord = ((high - base[:, None]) / (high - low).clamp_min(1e-20)).clamp(0, 1)
    best = torch.zeros_like(m).scatter_(1, m.argmax(1, keepdim=True), 1.0)
    share = chord / chord.sum(1, keepdim=True).clamp_min(1)
    starts = [chord * best, share, torch.zeros_like(m)]
    slope = starts[0]
    least, gradient = height(slope)
    for start in starts[1:]:
        value, g = height(start)
        better = value < least
        slope, gradient = (torch.where(better[:, None], a, b) for a, b in ((start, slope), (g, gradient)))
        least = torch.where(better, value, least)
    kept = slope
    for step in range(steps):
        size = 0.3 * 0.01 ** (step / max(steps - 1, 1))
        slope = (slope - size * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-20)).clamp(0, 1)
        value, gradient = height(slope)
        better = value < least
        kept = torch.where(better[:, None], slope, kept)
        least = torch.where(better, value, least)
    return kept.double()
