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

from math import ceil

import torch
from torch import Tensor

from dprobust.bounds.chain import Block, Maximum
from dprobust.bounds.planes import slopes

UNIT = 2.0**-24
OWN = 1 + 2.0**-10
NUMBERS = 2**19
"""Of coefficients held at once: about what fits a cache."""

Place = tuple[int, int]


class Image:
    """The bounds of one image, a block at a time."""

    def __init__(self, blocks: list[Block], low: Tensor, high: Tensor) -> None:
        self.blocks, self.low, self.high = blocks, low, high
        self.relaxed: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        """Of each maximum: slopes below and above (K, C, H', W'), constants below and above (C, H', W')."""
        self.bounds = [(low, high)]
        """Of the input of each block (C, H, W)."""
        self.errors: list[Tensor] = []
        """d (C, H, W) of each block: what rounding adds to its output."""

    def error(self, block: int) -> Tensor:
        """d (C, H, W) of a block."""
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

    def enter(self) -> tuple[Tensor, Tensor]:
        """Interval arithmetic through the layers of the next block."""
        block = len(self.errors)
        self.errors.append(self.error(block))
        low, high = self.bounds[block]
        middle, radius = (low + high)[None] / 2, (high - low)[None] / 2
        for layer in self.blocks[block].layers:
            middle, radius = layer.value(middle), layer.absolute(radius)
        return (middle - radius)[0] - self.errors[block], (middle + radius)[0] + self.errors[block]

    def lower(self, block: int, a: Tensor, start: Place = (0, 0)) -> Tensor:
        """Lower bounds (B,) of combinations of a block's output, a (B, C, h, w) on its crop from `start`."""
        found = []
        for part in a.split(self._batch(a)):
            coefficients, constant, place = self.back(block, part, start)
            found.append(constant + self.least(coefficients, place))
        return torch.cat(found)

    def _batch(self, a: Tensor) -> int:
        widest = max(block.shape[0] * block.shape[1] * block.shape[2] for block in self.blocks[:-1] or self.blocks)
        return max(1, NUMBERS // (widest if a.shape[2:] == (1, 1) else min(widest, 4096)))

    def least(self, a: Tensor, start: Place) -> Tensor:
        """Least value (B,) of a (B, C, h, w) on the pixels of the crop from `start`."""
        low, high = (_crop(bound, a, start) for bound in (self.low, self.high))
        radius = (high - low) / 2 + 2.0**-40  # 2^-40: the rounding of these sums, pixels being at most 1
        return a.flatten(1) @ ((low + high) / 2).flatten() - a.abs().flatten(1) @ radius.flatten()

    def back(self, block: int, a: Tensor, start: Place) -> tuple[Tensor, Tensor, Place]:
        """A linear lower bound on pixels: coefficients (B, C, h, w) on a crop, constants (B,), where it starts."""
        constant = a.new_zeros(len(a))
        for i in range(block, -1, -1):
            constant = constant - a.abs().flatten(1) @ _crop(self.errors[i], a, start).flatten()
            for layer, shape in zip(reversed(self.blocks[i].layers), reversed(self.blocks[i].inputs), strict=True):
                if layer.bias is not None:
                    constant = constant + a.sum((2, 3)) @ layer.bias.double()
                a, window = layer.back(a), layer.window
                place = tuple(x * s - p for x, s, p in zip(start, window.stride, window.padding, strict=True))
                a, start = _inside(a, (0, 0) if layer.flat else place, shape)
            if i:
                a, start, more = self._through(i - 1, a, start)
                constant = constant + more
        return a, constant, start

    def _through(self, block: int, a: Tensor, start: Place) -> tuple[Tensor, Place, Tensor]:
        """Coefficients on a maximum's output -> on its input, by its linear bounds."""
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

    def relax(self) -> None:
        """Bound the output of the next block, and the maximum after it by linear functions."""
        block = len(self.errors)
        low, high = self.enter()
        maximum = self.blocks[block].maximum
        if maximum.window.size == (1, 1) and block:
            self._single(block, low, high)
        lows, highs = (maximum.members(bound[None])[0] for bound in (low, high))
        forms = None
        if maximum.window.size != (1, 1):
            forms = self._forms(block, lows, highs)
        above, high_constant = self._above(block, lows, highs, forms)
        base = _base(maximum, lows)
        # Below: the member whose middle is the largest, or base.
        middle = (lows + highs) / 2
        best = middle.argmax(0, keepdim=True)
        chosen = middle.amax(0) > base
        below = torch.zeros_like(lows).scatter_(0, best, 1.0) * chosen
        low_constant = torch.where(chosen, 0.0, base)
        # The rounding of the constants and of sums of them, in float64: a bound on their size, times 2^13 units.
        slack = 2.0**-40 * (1 + lows.abs().amax(0) + highs.abs().amax(0)) * (1 + len(lows))
        self.relaxed.append((below, above, low_constant - slack, high_constant + slack))
        self.bounds.append((base, torch.maximum(highs.amax(0), base)))

    def _single(self, block: int, low: Tensor, high: Tensor) -> None:
        """Tighten the bounds, in place, of the units that a ReLU follows and intervals leave undecided."""
        open_ = (low < 0) & (high > 0)
        for r, s in open_.any(0).nonzero().tolist():
            channels = open_[:, r, s].nonzero()[:, 0]
            unit = torch.eye(len(low), dtype=low.dtype)[channels][:, :, None, None]
            found = self.lower(block, torch.cat([unit, -unit]), (r, s))
            least, most = found[: len(channels)], -found[len(channels) :]
            low[channels, r, s] = torch.maximum(low[channels, r, s], least)
            high[channels, r, s] = torch.minimum(high[channels, r, s], most)

    def _forms(self, block: int, lows: Tensor, highs: Tensor) -> dict:
        """Linear bounds of the members of undecided windows, which tighten lows and highs (K, C, H', W') in place.

        Returns: place of a window -> channels (n,), and what `slopes` takes of them.
        """
        maximum = self.blocks[block].maximum
        found = {}
        open_ = _open(maximum, lows, highs)
        (k, wide), (s, t) = maximum.window.size, maximum.window.stride
        count = len(maximum.places)
        for r, c in open_.any(0).nonzero().tolist():
            channels = open_[:, r, c].nonzero()[:, 0]
            a = _members(channels, torch.eye(count, dtype=lows.dtype).expand(len(channels), -1, -1), len(open_[:]), (k, wide))
            start = (r * s, c * t)
            signs = (1, -1) if block else (1,)
            bounds = [self.back(block, sign * a, start) for sign in signs]
            place = bounds[0][2]
            low, high = (_crop(bound, bounds[0][0], place) for bound in (self.low, self.high))
            radius = ((high - low) / 2).flatten()
            at = ((low + high) / 2).flatten()
            values = []
            if block:
                for sign, (coefficients, constant, _) in zip(signs, bounds, strict=True):
                    least = constant + self.least(coefficients, place)
                    tensor = lows if sign > 0 else highs
                    least = sign * least.view(len(channels), count).T
                    old = tensor[:, channels, r, c]
                    tensor[:, channels, r, c] = torch.maximum(old, least) if sign > 0 else torch.minimum(old, least)
                    values.append((sign * coefficients.flatten(1), sign * constant))
                form = (values[0][0] + values[1][0]) / 2
                constant = (values[0][1] + values[1][1]) / 2
            else:
                form, constant = bounds[0][0].flatten(1), bounds[0][1]
            middle = form @ at + constant
            vectors = form * radius
            found[r, c] = (channels, vectors.view(len(channels), count, -1), middle.view(len(channels), count))
        return found

    def _above(self, block: int, lows: Tensor, highs: Tensor, forms: dict | None) -> tuple[Tensor, Tensor]:
        """Slopes (K, C, H', W') and constants (C, H', W') of linear upper bounds of a maximum."""
        maximum = self.blocks[block].maximum
        base = _base(maximum, lows)
        live = highs > base
        # Where one member alone can exceed base: its chord, or itself.
        width = (highs - lows).clamp_min(1e-300)
        chord = torch.where(lows >= base, 1.0, (highs - base) / width).clamp(0, 1) * live
        constant = base - (chord * lows).sum(0)
        exact = (live & (lows >= base)).any(0) & (live.sum(0) == 1)
        constant = torch.where(exact, 0.0, constant)
        if forms is None:
            return chord, constant
        above = torch.where(live.sum(0) < 2, chord, 0.0)
        constant = torch.where(live.sum(0) < 2, constant, highs.amax(0))
        open_ = _open(maximum, lows, highs) & (live.sum(0) > 1)
        self.optimize(block, maximum, lows, highs, forms, open_, above, constant)
        return above, constant

    def optimize(self, block, maximum, lows, highs, forms, open_, above, constant):
        count = len(maximum.places)
        places, rows, vectors, middles = [], [], [], []
        size = max((v.shape[2] for _, v, _ in forms.values()), default=0)
        for (r, c), (channels, v, m) in forms.items():
            keep = open_[channels, r, c]
            if keep.any():
                channels = channels[keep]
                places.append(((r, c), channels))
                vectors.append(torch.nn.functional.pad(v[keep], (0, size - v.shape[2])))
                middles.append(m[keep])
                rows.append(torch.stack([lows[:, channels, r, c].T, highs[:, channels, r, c].T], 1))
        if not places:
            return
        rows = torch.cat(rows)
        chosen = slopes(torch.cat(vectors), torch.cat(middles), rows[:, 0], rows[:, 1], maximum.floor)
        lows_, highs_ = rows[:, 0], rows[:, 1]
        done = 0
        for (r, c), channels in places:
            part = chosen[done : done + len(channels)]  # (n, K)
            l, h = lows_[done : done + len(channels)], highs_[done : done + len(channels)]
            done += len(channels)
            eye = torch.eye(count, dtype=part.dtype)
            if maximum.floor:
                eye = torch.cat([eye, torch.zeros(1, count, dtype=part.dtype)])
            combos = part[:, None] - eye  # of - (x_i - sum lambda x)
            a = _members(channels, combos, above.shape[1], maximum.window.size)
            s, t = maximum.window.stride
            most = -self.lower(block, a, (r * s, c * t)).view(len(channels), len(eye))
            up = (-combos).clamp_min(0) @ h[:, :, None] + (-combos).clamp_max(0) @ l[:, :, None]
            most = torch.minimum(most, up[:, :, 0]).amax(1)
            above[:, channels, r, c] = part.T
            constant[channels, r, c] = most


def _members(channels: Tensor, combos: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Combinations (n, B, K) of the members of a window of n channels -> coefficients (n B, C, h, w) on its crop."""
    n, b, k = combos.shape
    out = combos.new_zeros(n, b, count, k)
    out[torch.arange(n), :, channels] = combos
    return out.view(n * b, count, *size)


def _base(maximum: Maximum, lows: Tensor) -> Tensor:
    """What the maximum is at least (C, H', W')."""
    return lows.amax(0).clamp_min(0) if maximum.floor else lows.amax(0)


def _open(maximum: Maximum, lows: Tensor, highs: Tensor) -> Tensor:
    """bool (C, H', W'): windows that are neither constant nor always the same member."""
    base = _base(maximum, lows)
    live = highs > base
    exact = (live & (lows >= base)).any(0) & (live.sum(0) == 1)
    return live.any(0) & ~exact


def _crop(values: Tensor, a: Tensor, start: Place) -> Tensor:
    """The part (..., h, w) of a map that a crop covers."""
    return values[..., start[0] : start[0] + a.shape[2], start[1] : start[1] + a.shape[3]]


def _inside(a: Tensor, start: Place, shape: tuple[int, int, int]) -> tuple[Tensor, Place]:
    """The part of a crop that lies in the map; the rest meets the zeros of the padding."""
    first = [max(0, -x) for x in start]
    last = [min(a.shape[n + 2], shape[n + 1] - start[n]) for n in range(2)]
    return a[:, :, first[0] : last[0], first[1] : last[1]], (max(0, start[0]), max(0, start[1]))
