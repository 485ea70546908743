"""The noise on the sums of DP-SGD: where it comes from, its law, and what a running training shows of it.

Noise of float32 arithmetic ends early: torch's, by Box and Muller from uniforms of 24 bits, at sqrt(48 ln 2) = 5.77
standard deviations. A bounded noise has sums that one of two neighbouring data sets cannot give, so no epsilon holds at
a small delta. Here numbers are drawn in float64: on the CPU by NumPy's ziggurat, whose tail (Marsaglia's, from uniforms
of 53 bits) reaches 12 standard deviations; on CUDA by Box and Muller from uniforms of 54 bits, which end at
sqrt(108 ln 2) = 8.65.

What remains of floating-point arithmetic (Mironov 2012, "On significance of the least significant bits for differential
privacy") is told in docs/privacy-noise.md. In short: sum plus noise is computed in float64 and rounded to multiples of
`GRID` standard deviations, the same ones whatever the sum is, before it becomes float32; so the gaps between the
float64 numbers that a sampler can give do not show. No proof is claimed.

Each step has a stream of its own: there is no state to keep between two steps, and the noise of any step can be drawn
again alone, but for secret noise, which nobody can draw again.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dprobust import seeds

GRID = 2.0**-20
"""Spacing of the noisy sums in standard deviations of the noise, which is first rounded down to a power of 2."""

BLOCK = 2**15
"""Numbers that are drawn at a time on the CPU: 256 KiB."""

Gradients = Mapping[str, Tensor]


class Noise:
    """Gaussian noise for the sums of a training, independent between steps and parameters.

    Args:
        std: standard deviation, above 0.
        stream: names that the numbers are derived from, one stream a step.
        secret: take them from the operating system instead (`dprobust.seeds.secret_normal_generator`). They are drawn
            on the CPU then, on CUDA too: CUDA's generators are no ciphers.
        device: of the sums.
    """

    def __init__(self, std: float, stream: tuple[object, ...], secret: bool, device: torch.device | str) -> None:
        if not 0 < std < math.inf:
            raise ValueError(f"std must be positive and finite, not {std}")
        self.std, self.stream, self.secret, self.device = std, stream, secret, torch.device(device)
        # On the CPU a block is drawn, scaled, added and rounded while it is in the cache of a core.
        self._block = torch.empty(BLOCK, dtype=torch.float64)

    def sampler(self, step: int) -> Callable[[int], Tensor]:
        """The stream of a step: a function of n that gives its next n standard normal numbers (n,), float64.

        On the CPU they are in memory that the next call uses again, and are the same ones however many are asked for at
        a time.
        """
        if self.device.type != "cpu" and not self.secret:
            random = seeds.generator(*self.stream, "noise", step, device=self.device)
            return lambda n: torch.empty(n, dtype=torch.float64, device=self.device).normal_(generator=random)
        numpy = seeds.secret_normal_generator() if self.secret else seeds.normal_generator(*self.stream, "noise", step)

        def normal(n: int) -> Tensor:
            block = self._block[:n] if n <= BLOCK else torch.empty(n, dtype=torch.float64)
            numpy.standard_normal(out=block.numpy())
            return block.to(self.device)

        return normal

    def draw(self, step: int, n: int) -> Tensor:
        """The first n standard normal numbers (n,) of a step, float64, in memory that the next call uses again."""
        return self.sampler(step)(n)

    def add(self, step: int, sums: Gradients) -> dict[str, Tensor]:
        """The sums with the noise of a step, in new tensors: autograd may give one as the sum of two parameters."""
        normal, noisy = self.sampler(step), {}
        if self.device.type == "cpu":
            for name, value in sums.items():
                noisy[name] = torch.empty(value.shape, dtype=value.dtype)
                for part, found in zip(value.reshape(-1).split(BLOCK), noisy[name].view(-1).split(BLOCK), strict=True):
                    found.copy_(self._round(normal(len(part)).mul_(self.std).add_(part)))
            return noisy
        drawn = normal(sum(value.numel() for value in sums.values())).mul_(self.std)
        parts = drawn.split([value.numel() for value in sums.values()])
        for part, value in zip(parts, sums.values(), strict=True):
            part.view(value.shape).add_(value)
        self._round(drawn)
        rounded = {dtype: drawn.to(dtype, copy=True) for dtype in {value.dtype for value in sums.values()}}
        start = 0
        for name, value in sums.items():
            noisy[name] = rounded[value.dtype][start : start + value.numel()].view(value.shape)
            start += value.numel()
        return noisy

    def _round(self, values: Tensor) -> Tensor:
        """Values (n,), float64, rounded in place to multiples of the grid."""
        top = grid_top(self.std)
        return values.add_(top).sub_(top)


def grid_top(std: float) -> float:
    """Number that rounds a float64 to the grid of noise when it is added and subtracted again: above it the spacing of
    float64 is that of the grid."""
    return 1.5 * 2.0**52 * GRID * 2.0 ** math.floor(math.log2(std))


class Observed(NamedTuple):
    """A step of a running training, as the `watch` of `dprobust.training.train` is told of it."""

    step: int
    """0 for the first, counted over all epochs."""
    sums: Gradients
    """Sums of the (clipped) gradients of the batch, by parameter."""
    noisy: Gradients
    """What the step is made from: the sums with noise, where there is noise."""
    moved: Gradients
    """Parameters before the step minus after it: lr / b times `noisy`, without momentum and weight decay."""


Watch = Callable[[Observed], None]


def residuals(observed: Observed, std: float) -> dict[str, np.ndarray]:
    """What a step added to the sums, in stated standard deviations: standard normal, if the noise is as stated.

    Up to round-off: `noisy` is float32.

    Args:
        observed: a step.
        std: `dprobust.recipe.Training.noise_std`.

    Returns:
        float64 (elements,) by parameter.
    """
    return {
        name: ((value.double() - observed.sums[name].double()) / std).flatten().cpu().numpy()
        for name, value in observed.noisy.items()
    }


def divisor(observed: Observed, lr: float) -> float:
    """What a step divided the noisy sums by, the batch size b if the step is as stated, by least squares.

    For plain steps, without momentum and weight decay. A divisor that follows the batch drawn would tell its size.
    """
    along = sum((observed.noisy[name].double() * moved.double()).sum().item() for name, moved in observed.moved.items())
    return lr * sum(value.double().square().sum().item() for value in observed.noisy.values()) / along
