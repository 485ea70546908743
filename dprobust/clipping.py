"""Clip factors, and norms that are never too small for the bound that they stand for.

The bound: what an example adds to a sum has norm at most C (1 + 1e-6). A norm in float32 does not give it: the norm of
10^6 equal numbers comes out 7e-4 too small, because torch adds squares one after the other. Here every factor is held
against a norm whose error is known; the faster norm stays where the bound holds with it.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

GAMMA = 0.01
"""Of the clip function `automatic`, as in Bu et al. 2022 (arXiv 2206.07136)."""

SLACK = 9e-7
"""By how much factor times norm may exceed C; the rounding of factor times gradient adds 2^-24, 6e-8, to it."""

BLOCK = 48
"""Elements whose squares are added in float32. torch adds in four partial sums or more, so that an element passes at
most 48 / 4 + 4 additions and a squaring: a relative error of 17 u, u = 2^-24, in the square, and with the root's own
9.5 u in the norm of a block."""

BLOCK_ERROR = 9.5 * 2**-24

SHORT = 1024
"""Rows of fewer elements are done at once in float64."""

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
    """Squared norms (n,) of rows (n, ...), in float64 and for long rows on a CPU twice as fast: see `at_least`."""
    rows = rows.flatten(1)
    elements = rows.shape[1]
    if elements < SHORT or rows.dtype == torch.float64:
        return squares(rows)
    whole = elements - elements % BLOCK
    blocks = torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (whole // BLOCK, BLOCK)), dim=2)
    return squares(blocks) if whole == elements else squares(blocks) + squares(rows[:, whole:])


def at_least(squared: Tensor, elements: int) -> Tensor:
    """What the true squared norms (n,) of rows of float32 cannot be above, given those by blocks."""
    # Squares below the normal numbers are rounded absolutely, or to zero.
    return squared * (1 + 2.01 * BLOCK_ERROR) + elements * torch.finfo(torch.float32).tiny


def doubtful(norms: Tensor, factors: Tensor, squared: Tensor, clip: float) -> Tensor:
    """Whether norms (n,) are too small for the bound with their factors, much too large, or no numbers.

    `squared`: squared norms (n,) that are not too small, in float64.
    """
    lengths = squared.sqrt()
    return ~(factors.double() * lengths <= clip * (1 + SLACK)) | ~(norms <= lengths * (1 + 2 * SLACK))


def settle(norms: Tensor, squared: Tensor, clip: float, clip_function: str) -> tuple[Tensor, Tensor]:
    """Norms (n,), each replaced by the root of `squared` if `doubtful`; and factors, 0 for what is not finite."""
    doubt = doubtful(norms, coefficients(norms, clip, clip_function), squared, clip)
    norms = torch.where(doubt, squared.sqrt().to(norms.dtype), norms)
    return norms, coefficients(norms, clip, clip_function).masked_fill(~norms.isfinite(), 0)


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
