"""Clip factors, and norms that are never too small for the bound that they stand for.

The bound: what an example adds to a sum has norm at most C (1 + 1e-6). A norm in float32 does not give it: the norm of
10^6 equal numbers comes out 7e-4 too small, because torch adds squares one after the other. Here every factor is held
against a norm whose error is known; the faster norm stays where the bound holds with it.
"""

from collections.abc import Callable, Mapping, Sequence

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


def squares(rows: Tensor) -> Tensor:
    """Squared norms of rows (n, ...), in float64: for float32 without overflow, exact to 1e-12 for 10^4 elements."""
    return torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=torch.float64).square()


def squares_at_least(rows: Tensor) -> Tensor:
    """The squared norms of rows (n, E), or up to 2.3e-6 more, in float64 and on a CPU three times as fast."""
    if rows.device.type != "cpu" or rows.dtype == torch.float64:
        return squares(rows)
    elements = rows.shape[1]
    whole = elements - elements % BLOCK
    blocks = torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (whole // BLOCK, BLOCK)), dim=2)
    found = squares(blocks) + squares(rows[:, whole:])
    # Squares below the normal numbers are rounded absolutely, or to zero.
    return found * (1 + 2.01 * BLOCK_ERROR) + elements * torch.finfo(rows.dtype).tiny


def settle(
    norms: Tensor, rest: Tensor, explicit: Sequence[Tensor], clip: float, clip_function: str
) -> tuple[Tensor, Tensor]:
    """Norms (n,) that the bound holds with, and the factors by them; 0 for a gradient that is not finite.

    Args:
        norms: as computed in the precision of the gradients; they are kept where the bound holds with them.
        rest: squared norms, float64 and not too small, of the parts of the gradients that are not in `explicit`.
        explicit: the other parts, each (n, elements).
        clip: C.
        clip_function: a key of `CLIP_FUNCTIONS`.
    """

    def doubtful() -> Tensor:
        # True for nan.
        return ~(factors.double() * squared.sqrt() <= clip * (1 + SLACK)) | norms.isinf()

    factors = coefficients(norms, clip, clip_function)
    squared = sum((squares_at_least(part) for part in explicit), rest)
    doubt = doubtful()
    if norms.device.type == "cpu" and doubt.any():
        squared[doubt] = sum((squares(part[doubt]) for part in explicit), rest[doubt])
        doubt = doubtful()
    norms = torch.where(doubt, squared.sqrt().to(norms.dtype), norms)
    return norms, coefficients(norms, clip, clip_function).masked_fill(~norms.isfinite(), 0)


def dropped(norms: Tensor) -> Tensor | None:
    """Which examples (N,) have no finite gradient; None if on a CPU, where it costs no waiting to ask, none has."""
    missing = ~norms.isfinite()
    return missing if norms.device.type != "cpu" or missing.any() else None


def without(rows: Tensor, missing: Tensor | None) -> Tensor:
    """Rows (N, ...) with zeros in those that are `missing` (N,): a factor of 0 does not remove nan and infinity."""
    return rows if missing is None else rows.masked_fill(missing.view(-1, *[1] * (rows.dim() - 1)), 0)


def clip_explicit(per_example: Mapping[str, Tensor], clip: float, clip_function: str) -> Result:
    """Clipped sum and norms of per-example gradients, each (N, ...)."""
    exact = sum(squares(g) for g in per_example.values())
    norms = exact.sqrt().to(next(iter(per_example.values())).dtype)
    factors, missing = coefficients(norms, clip, clip_function).masked_fill(~norms.isfinite(), 0), dropped(norms)
    return {name: torch.tensordot(factors, without(g, missing), 1) for name, g in per_example.items()}, norms
