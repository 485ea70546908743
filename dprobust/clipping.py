"""Clip factors, and norms that are never too small for the bound that they stand for.

The bound: what an example adds to a sum has norm at most C (1 + 1e-6). A norm in float32 does not give it: the norm of
10^6 equal numbers comes out 7e-4 too small, because torch adds squares one after the other. Here norms are
float32 in blocks of so few elements that their error is known, and float64 from there on.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

GAMMA = 0.01
"""Of the clip function `automatic`, as in Bu et al. 2022 (arXiv 2206.07136)."""

SLACK = 9e-7
"""By how much factor times norm may exceed C; the rounding of factor times gradient adds 2^-24, 6e-8, to it."""

BLOCK = 64
"""Elements whose squares are added in float32. torch adds in four partial sums or more, so that an element passes at
most 64 / 4 + 4 additions and a squaring: a relative error of 21 u, u = 2^-24, in the square, and with the root's own
11.5 u in the norm of a block."""

BLOCK_ERROR = 11.5 * 2**-24

Result = tuple[dict[str, Tensor], Tensor]


def abadi(norms: Tensor, clip: float) -> Tensor:
    """Factors 1 / max(1, norm / C): gradients longer than C get norm C (Abadi et al. 2016; Algorithm 1)."""
    return (clip / norms).clamp(max=1)


def automatic(norms: Tensor, clip: float) -> Tensor:
    """Factors C / (norm + 0.01): every gradient gets a norm below C (AUTO-S of Bu et al. 2022)."""
    return clip / (norms + GAMMA)


CLIP_FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {"abadi": abadi, "automatic": automatic}
"""From norms (N,) and C to the factors (N,) of the gradients."""


def coefficients(norms: Tensor, clip: float, clip_function: str = "abadi") -> Tensor:
    """Factors of gradients of these norms; 0 where a factor is too small to be a normal number."""
    factors = CLIP_FUNCTIONS[clip_function](norms, clip)
    return factors.masked_fill(factors < torch.finfo(factors.dtype).tiny, 0)


Squares = Callable[[Tensor], Tensor]


def squares(rows: Tensor) -> Tensor:
    """Squared norms (n,) of rows (n, ...), in float64: those of float32 numbers cannot overflow."""
    return torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=torch.float64).square()


def squares_by_blocks(rows: Tensor) -> Tensor:
    """Squared norms (n,) of rows (n, ...), in float64, of norms of blocks in their own precision.

    On a CPU twice as fast as `squares`; `bounded` knows the error.
    """
    rows = rows.flatten(1)
    n, elements = rows.shape
    if elements < 4 * BLOCK:
        return squares(rows)
    end = elements - elements % BLOCK
    found = squares(torch.linalg.vector_norm(rows[:, :end].view(n, end // BLOCK, BLOCK), dim=2))
    return found if end == elements else found + squares(rows[:, end:])


def at_least(squared: Tensor, elements: int) -> Tensor:
    """What the true squared norms (n,) of rows of float32 cannot be above, given those by blocks."""
    # Squares below the normal numbers are rounded absolutely, or to zero.
    return squared * (1 + 2.01 * BLOCK_ERROR) + elements * torch.finfo(torch.float32).tiny


def factors(squared: Tensor, dtype: torch.dtype, clip: float, clip_function: str) -> tuple[Tensor, Tensor]:
    """Norms (n,) in the precision of the gradients, and factors, 0 for what is not finite, from squared norms."""
    norms = squared.sqrt().to(dtype)
    return norms, coefficients(norms, clip, clip_function).masked_fill(~norms.isfinite(), 0)


def bounded(norms: Tensor, factors: Tensor, squared: Tensor, elements: int, clip: float) -> bool:
    """Whether the bound holds for these factors of gradients of so many `elements`, and all norms are finite.

    `squared`: their squared norms (n,) by blocks. It does, unless a gradient is so small that its squares vanish, or so
    large that its norm overflows: the error of a block, the rounding of the norm and that of the factor are together
    6.9e-7 + 2 * 6e-8, less than `SLACK`.
    """
    lengths = at_least(squared, elements).sqrt()
    return bool((norms.isfinite() & (factors * lengths <= clip * (1 + SLACK))).all())


def without(rows: Tensor, missing: Tensor) -> Tensor:
    """Rows (N, ...) with zeros in those that are `missing` (N,): a factor of 0 does not remove nan and infinity."""
    return rows.masked_fill(missing.view(-1, *[1] * (rows.dim() - 1)), 0)


def clip_explicit(per_example: Mapping[str, Tensor], clip: float, clip_function: str) -> Result:
    """Clipped sum and norms of per-example gradients, each (N, ...)."""
    exact = sum(squares(g) for g in per_example.values())
    norms = exact.sqrt().to(next(iter(per_example.values())).dtype)
    missing = ~norms.isfinite()
    factors = coefficients(norms, clip, clip_function).masked_fill(missing, 0)
    return {name: torch.tensordot(factors, without(g, missing), 1) for name, g in per_example.items()}, norms
