"""Backward linear bounds (CROWN, Zhang et al. 2018, arXiv 1811.00866) of one image, in float64.

The maximum u = max(0, x_1, ..., x_K) of a window is bounded as one: from below by a member or 0, from above by
sum_j lambda_j x_j + c with c >= x_i - sum_j lambda_j x_j for every member i and for 0; that supremum is a bound of the
same kind, going back to the pixels, so that members which share pixels are bounded together.

Rounding. Let u = 2^-24 and g_n = n u / (1 - n u). A sum of n products in float32, in whatever order, is off by at most
g_n times the sum of their absolute values (Higham 2002, section 3.1). So a float32 network is the exact one with an
error of at most d = g_(n+1) (|W| X + |b|) added to each affine layer's output, X >= |x| being a bound on its input; of
layers in a row the earlier errors pass through the |W| of the later ones. Every bound here holds for all such errors:
d is taken off at each block that a bound passes. The bounds' own rounding is of float64, 2^-53 in place of u: d is
enlarged by 2^-10, which covers sums of up to 2^18 terms.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dprobust.bounds.chain import Block, Maximum
from dprobust.bounds.planes import slopes

UNIT = 2.0**-24
OWN = 1 + 2.0**-10
NUMBERS = 2**19
"""Coefficients that are held at once, at most: about what fits a cache."""

Place = tuple[int, int]
"""Row and column."""


class Relaxed(NamedTuple):
    """Linear bounds of a maximum: sum_j slopes_j x_j + a constant; slopes (K, C, H', W'), constants (C, H', W')."""

    below: Tensor
    above: Tensor
    low: Tensor
    high: Tensor


class Members(NamedTuple):
    """The members of undecided windows at one place of a maximum's output.

    Of n channels (n,), a member is about `middles` (n, K) + `vectors` (n, K, F) t on the pixels, |t| <= 1.
    """

    place: Place
    channels: Tensor
    vectors: Tensor
    middles: Tensor


class Image:
    """The bounds of one image, a block at a time: `relax` for all blocks but the last, `enter` for that."""

    def __init__(self, blocks: list[Block], low: Tensor, high: Tensor) -> None:
        self.blocks, self.low, self.high = blocks, low, high
        self.bounds = [(low, high)]
        """Of the input of each block (C, H, W)."""
        self.errors: list[Tensor] = []
        """d (C, H, W) of each block: what rounding adds to its output."""
        self.relaxed: list[Relaxed] = []
        """Of the maximum after each block."""

    def enter(self) -> tuple[Tensor, Tensor]:
        """Interval arithmetic through the layers of the next block."""
        block = len(self.errors)
        self.errors.append(self._error(block))
        low, high = self.bounds[block]
        middle, radius = (low + high)[None] / 2, (high - low)[None] / 2
        for layer in self.blocks[block].layers:
            middle, radius = layer.value(middle), layer.absolute(radius)
        return (middle - radius)[0] - self.errors[block], (middle + radius)[0] + self.errors[block]

    def relax(self) -> None:
        """Bound the output of the next block, and the maximum after it by linear functions."""
        block = len(self.errors)
        low, high = self.enter()
        maximum = self.blocks[block].maximum
        single = maximum.window.size == (1, 1)
        if single and block:
            self._decide(block, low, high)
        lows, highs = (maximum.members(bound[None])[0] for bound in (low, high))
        members = [] if single else self._members(block, lows, highs)
        base = _base(maximum, lows)
        above, top = _chord(base, lows, highs)
        self._planes(block, lows, highs, members, above, top)
        # Below: the member whose middle is the largest, or base.
        middle = (lows + highs) / 2
        chosen = middle.amax(0) > base
        below = torch.zeros_like(lows).scatter_(0, middle.argmax(0, keepdim=True), 1.0) * chosen
        bottom = torch.where(chosen, 0.0, base)
        # The rounding of the constants and of sums of them, in float64: a bound on their size, times 2^13 units.
        slack = 2.0**-40 * (1 + lows.abs().amax(0) + highs.abs().amax(0)) * (1 + len(lows))
        self.relaxed.append(Relaxed(below, above, bottom - slack, top + slack))
        self.bounds.append((base, torch.maximum(highs.amax(0), base)))

    def lower(self, block: int, a: Tensor, start: Place = (0, 0)) -> Tensor:
        """Lower bounds (B,) of combinations of a block's output, a (B, C, h, w) on its crop from `start`."""
        coefficients, constant, place = self.linear(block, a, start)
        return constant + self._least(coefficients, place)

    def linear(self, block: int, a: Tensor, start: Place) -> tuple[Tensor, Tensor, Place]:
        """Linear lower bounds of such combinations on the pixels: coefficients (B, C, h, w) on a crop, constants (B,),
        where the crop starts."""
        widest = max(block.shape[0] * block.shape[1] * block.shape[2] for block in self.blocks)
        found = [self._back(block, part, start) for part in a.split(max(1, NUMBERS // widest))]
        coefficients, constants, places = zip(*found, strict=True)
        return torch.cat(coefficients), torch.cat(constants), places[0]

    def _error(self, block: int) -> Tensor:
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

    def _back(self, block: int, a: Tensor, start: Place) -> tuple[Tensor, Tensor, Place]:
        constant = a.new_zeros(len(a))
        for i in range(block, -1, -1):
            constant = constant - a.abs().flatten(1) @ _crop(self.errors[i], a, start).flatten()
            for layer, shape in zip(reversed(self.blocks[i].layers), reversed(self.blocks[i].inputs), strict=True):
                if layer.bias is not None:
                    constant = constant + a.sum((2, 3)) @ layer.bias.double()
                a, window = layer.back(a), layer.window
                before = tuple(x * s - p for x, s, p in zip(start, window.stride, window.padding, strict=True))
                a, start = _inside(a, (0, 0) if layer.flat else before, shape)
            if i:
                a, start, more = self._through(i - 1, a, start)
                constant = constant + more
        return a, constant, start

    def _through(self, block: int, a: Tensor, start: Place) -> tuple[Tensor, Place, Tensor]:
        """Coefficients on a maximum's output -> on its input, with constants, by its linear bounds."""
        maximum = self.blocks[block].maximum
        below, above, low, high = (_crop(bound, a, start) for bound in self.relaxed[block])
        up = a.clamp_min(0)
        down = a - up
        constant = up.flatten(1) @ low.flatten() + down.flatten(1) @ high.flatten()
        (k, wide), (s, t), (height, width) = maximum.window.size, maximum.window.stride, a.shape[2:]
        out = a.new_zeros(*a.shape[:2], s * (height - 1) + k, t * (width - 1) + wide)
        for n, (i, j) in enumerate(maximum.places):
            part = out[:, :, i : i + s * (height - 1) + 1 : s, j : j + t * (width - 1) + 1 : t]
            part += (up * below[n]).addcmul_(down, above[n])
        return out, (start[0] * s, start[1] * t), constant

    def _least(self, a: Tensor, start: Place) -> Tensor:
        """Least value (B,) of a (B, C, h, w) on the pixels of the crop from `start`."""
        low, high = (_crop(bound, a, start) for bound in (self.low, self.high))
        radius = (high - low) / 2 + 2.0**-40  # 2^-40: the rounding of these sums, pixels being at most 1
        return a.flatten(1) @ ((low + high) / 2).flatten() - a.abs().flatten(1) @ radius.flatten()

    def _decide(self, block: int, low: Tensor, high: Tensor) -> None:
        """Tighten the bounds, in place, of the units that intervals leave undecided before a ReLU."""
        open_ = (low < 0) & (high > 0)
        for r, s in open_.any(0).nonzero().tolist():
            channels = open_[:, r, s].nonzero()[:, 0]
            unit = torch.eye(len(low), dtype=low.dtype)[channels][:, :, None, None]
            least, most = self.lower(block, torch.cat([unit, -unit]), (r, s)).chunk(2)
            low[channels, r, s] = torch.maximum(low[channels, r, s], least)
            high[channels, r, s] = torch.minimum(high[channels, r, s], -most)

    def _members(self, block: int, lows: Tensor, highs: Tensor) -> list[Members]:
        """The members of undecided windows; their bounds lows and highs (K, C, H', W') are tightened in place."""
        maximum, count = self.blocks[block].maximum, len(lows)
        open_ = _open(maximum, lows, highs)
        found = []
        for r, s in open_.any(0).nonzero().tolist():
            channels = open_[:, r, s].nonzero()[:, 0]
            unit = torch.eye(count, dtype=lows.dtype).expand(len(channels), -1, -1)
            a, start = _on_crop(unit, channels, maximum, lows.shape[1]), _before(maximum, (r, s))
            form, constant, place = self.linear(block, a, start)
            if block:  # of the first block intervals are exact, and the form is both the lower and the upper one
                form_above, constant_above, _ = self.linear(block, -a, start)
                least = (constant + self._least(form, place)).view(-1, count).T
                most = -(constant_above + self._least(form_above, place)).view(-1, count).T
                lows[:, channels, r, s] = torch.maximum(lows[:, channels, r, s], least)
                highs[:, channels, r, s] = torch.minimum(highs[:, channels, r, s], most)
                form, constant = (form - form_above) / 2, (constant - constant_above) / 2
            low, high = (_crop(bound, form, place).flatten() for bound in (self.low, self.high))
            middles = form.flatten(1) @ ((low + high) / 2) + constant
            vectors = form.flatten(1) * ((high - low) / 2)
            found.append(Members((r, s), channels, vectors.view(-1, count, len(low)), middles.view(-1, count)))
        return found

    def _planes(
        self, block: int, lows: Tensor, highs: Tensor, members: list[Members], above: Tensor, top: Tensor
    ) -> None:
        """Where several members of a window may be the largest, put a tight upper bound into above and top."""
        maximum, count = self.blocks[block].maximum, len(lows)
        open_ = (highs > _base(maximum, lows)).sum(0) > 1
        members = [m for m in members if open_[m.channels, *m.place].any()]
        if not members:
            return
        longest = max(m.vectors.shape[2] for m in members)
        vectors = [torch.nn.functional.pad(m.vectors, (0, longest - m.vectors.shape[2])) for m in members]
        low, high = (torch.cat([b[:, m.channels, *m.place].T for m in members]) for b in (lows, highs))
        chosen = slopes(torch.cat(vectors), torch.cat([m.middles for m in members]), low, high, maximum.floor)
        each = torch.eye(count, dtype=low.dtype)
        if maximum.floor:
            each = torch.cat([each, each.new_zeros(1, count)])
        sizes = [len(m.channels) for m in members]
        parts = zip(members, *(t.split(sizes) for t in (chosen, low, high)), strict=True)
        for (place, channels, _, _), slope, least, most in parts:
            differences = each - slope[:, None]  # x_i - sum_j lambda_j x_j, and of 0
            a = _on_crop(-differences, channels, maximum, lows.shape[1])
            sup = -self.lower(block, a, _before(maximum, place)).view(len(channels), -1)
            plain = differences.clamp_min(0) @ most[:, :, None] + differences.clamp_max(0) @ least[:, :, None]
            constant = torch.minimum(sup, plain[:, :, 0]).amax(1)
            still = open_[channels, *place]
            above[:, channels[still], *place] = slope[still].T
            top[channels[still], *place] = constant[still]


def _base(maximum: Maximum, lows: Tensor) -> Tensor:
    """What the maximum is at least (C, H', W')."""
    return lows.amax(0).clamp_min(0) if maximum.floor else lows.amax(0)


def _open(maximum: Maximum, lows: Tensor, highs: Tensor) -> Tensor:
    """bool (C, H', W'): windows whose maximum is neither constant nor always the same member."""
    base = _base(maximum, lows)
    live = highs > base
    return live.any(0) & ~_same(live, lows, base)


def _same(live: Tensor, lows: Tensor, base: Tensor) -> Tensor:
    """One member alone can exceed base, and is never below it."""
    return (live.sum(0) == 1) & (live & (lows >= base)).any(0)


def _chord(base: Tensor, lows: Tensor, highs: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes and constants of base + the chords of (x_j - base)+, or of the one member that is the maximum."""
    live = highs > base
    slope = torch.where(lows >= base, 1.0, (highs - base) / (highs - lows).clamp_min(1e-300)).clamp(0, 1) * live
    constant = torch.where(_same(live, lows, base), 0.0, base - (slope * lows).sum(0))
    return slope, constant


def _before(maximum: Maximum, place: Place) -> Place:
    """Where a window starts."""
    return place[0] * maximum.window.stride[0], place[1] * maximum.window.stride[1]


def _on_crop(combinations: Tensor, channels: Tensor, maximum: Maximum, count: int) -> Tensor:
    """Combinations (n, B, K) of the members of a window in n of `count` channels -> (n B, count, h, w) on it."""
    n, b, k = combinations.shape
    out = combinations.new_zeros(n, b, count, k)
    out[torch.arange(n), :, channels] = combinations
    return out.view(n * b, count, *maximum.window.size)


def _crop(values: Tensor, a: Tensor, start: Place) -> Tensor:
    """The part (..., h, w) of a map that a crop covers."""
    return values[..., start[0] : start[0] + a.shape[2], start[1] : start[1] + a.shape[3]]


def _inside(a: Tensor, start: Place, shape: tuple[int, int, int]) -> tuple[Tensor, Place]:
    """The part of a crop that lies in the map; the rest meets the zeros of the padding."""
    first = [max(0, -x) for x in start]
    last = [min(a.shape[n + 2], shape[n + 1] - start[n]) for n in range(2)]
    return a[:, :, first[0] : last[0], first[1] : last[1]], (max(0, start[0]), max(0, start[1]))
