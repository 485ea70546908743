"""Backward linear bounds (CROWN, Zhang et al. 2018, arXiv 1811.00866) of one image, in float64.

Rounding. Let u = 2^-24 and g_n = n u / (1 - n u). A sum of n products in float32, in whatever order, is off by at most
g_n times the sum of their absolute values (Higham 2002, section 3.1). So a float32 network is the exact one with an
error of at most d = g_(n+1) (|W| X + |b|) added to each affine layer's output, X >= |x| being a bound on its input; of
layers in a row the earlier errors pass through the |W| of the later ones. Every bound here holds for all such errors:
d is taken off at the layer that is bounded, and in the constants of the relaxations above it. The bounds' own rounding
is of float64, 2^-53 in place of u: d is enlarged by 2^-10, which covers sums of up to 2^18 terms.
"""

import torch
from torch import Tensor

from dprobust.bounds.chain import Block, Maximum

UNIT = 2.0**-24
OWN = 1 + 2.0**-10
CHUNK = 128


class Image:
    """The bounds of one image, a block at a time."""

    def __init__(self, blocks: list[Block], low: Tensor, high: Tensor) -> None:
        self.blocks, self.low, self.high = blocks, low, high
        self.relaxed: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        """Of each maximum: slopes below and above (K, C, H', W'), constants below and above (C, H', W')."""
        self.bounds = [(low, high)]
        """Of the input of each block (C, H, W)."""

    def error(self, block: int) -> Tensor:
        """d (C, H, W): what rounding adds to a block's output."""
        size = torch.maximum(self.bounds[block][0].abs(), self.bounds[block][1].abs())[None]
        total = torch.zeros_like(size)
        for layer in self.blocks[block].layers:
            reach = layer.absolute(size)
            if layer.bias is not None:
                reach = reach + layer.bias.double().abs()[:, None, None]
            n = (layer.terms[0] + 2) * UNIT
            total = layer.absolute(total)
            total = total + OWN * n / (1 - n) * (reach + total)
            size = reach + total
        return total[0]

    def interval(self, block: int) -> tuple[Tensor, Tensor]:
        """Interval arithmetic through a block's layers."""
        low, high = self.bounds[block]
        middle, radius = (low + high)[None] / 2, (high - low)[None] / 2
        for layer in self.blocks[block].layers:
            middle, radius = layer.value(middle), layer.absolute(radius)
        error = self.error(block)
        return (middle - radius)[0] - error, (middle + radius)[0] + error

    def lower(self, block: int, a: Tensor) -> Tensor:
        """Lower bounds (B,) of combinations a (B, C, H, W) of a block's output."""
        parts = [self._lower(block, part) for part in a.split(CHUNK)]
        return torch.cat(parts)

    def _lower(self, block: int, a: Tensor) -> Tensor:
        constant = -(a.abs() * self.error(block)).sum((1, 2, 3))
        for i in range(block, -1, -1):
            for layer, shape in zip(reversed(self.blocks[i].layers), reversed(self.blocks[i].inputs), strict=True):
                if layer.bias is not None:
                    constant = constant + a.sum((2, 3)) @ layer.bias.double()
                a = _fit(layer.back(a), shape, layer.window.padding)
            if i:
                maximum, shape = self.blocks[i - 1].maximum, self.blocks[i - 1].shape
                below, above, low, high = self.relaxed[i - 1]
                up, down = a.clamp_min(0), a.clamp_max(0)
                constant = constant + (up * low + down * high).sum((1, 2, 3))
                a = _spread(maximum, up[:, None] * below + down[:, None] * above, shape)
        reach = (self.high - self.low) / 2 + 2.0**-40  # 2^-40: the rounding of these sums, pixels being at most 1
        return constant + (a * (self.low + self.high) / 2 - a.abs() * reach).sum((1, 2, 3))

    def relax(self, block: int, low: Tensor, high: Tensor) -> None:
        """Linear bounds of the maximum after a block whose output lies between low and high."""
        maximum = self.blocks[block].maximum
        lows, highs = (maximum.members(bound[None])[0] for bound in (low, high))
        base = lows.amax(0).clamp_min(0) if maximum.floor else lows.amax(0)
        # Above: max <= base + the chords of (x_i - base)+, or the constant max highs, whichever is lower in the middle.
        width = (highs - lows).clamp_min(1e-300)
        slope = torch.where(highs > base, torch.where(lows >= base, 1.0, (highs - base) / width), 0.0)
        slope = slope.clamp(0, 1)
        exact = ((highs > base).sum(0) == 1) & (lows >= base).any(0) & ((lows >= base) == (highs > base)).all(0)
        chord = base - (slope * lows).sum(0)
        top = torch.maximum(highs.amax(0), base)
        flat = (top < (slope * (lows + highs) / 2).sum(0) + chord) & ~exact
        above = torch.where(flat, 0.0, slope)
        high_constant = torch.where(flat, top, torch.where(exact, 0.0, chord))
        # Below: the member whose middle is the largest, or base.
        middle = (lows + highs) / 2
        best = middle.argmax(0, keepdim=True)
        below = torch.zeros_like(lows).scatter_(0, best, 1.0) * (middle.amax(0) > base)
        low_constant = torch.where(middle.amax(0) > base, 0.0, base)
        # The rounding of the constants and of sums of them, in float64: a bound on their size, times 2^13 units.
        slack = 2.0**-40 * (1 + lows.abs().amax(0) + highs.abs().amax(0)) * (1 + len(lows))
        self.relaxed.append((below, above, low_constant - slack, high_constant + slack))
        y = [torch.maximum(m.amax(0), base) for m in (lows, highs)]
        self.bounds.append((y[0], y[1]))


def _fit(a: Tensor, shape: tuple[int, int, int], padding: tuple[int, int]) -> Tensor:
    """Coefficients on the padded map, or the part of it that windows reach -> those on the map."""
    out = a.new_zeros(len(a), *shape)
    part = a[:, :, padding[0] : padding[0] + shape[1], padding[1] : padding[1] + shape[2]]
    out[:, :, : part.shape[2], : part.shape[3]] = part
    return out


def _spread(maximum: Maximum, pieces: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Coefficients on the members of windows (B, K, C, H', W') -> on the map."""
    out = pieces.new_zeros(len(pieces), *shape)
    (s, t), (height, width) = maximum.window.stride, pieces.shape[3:]
    for k, (i, j) in enumerate(maximum.places):
        out[:, :, i : i + s * (height - 1) + 1 : s, j : j + t * (width - 1) + 1 : t] += pieces[:, k]
    return out
