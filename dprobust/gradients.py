"""The gradient of one parameter for each example of a batch, from the inputs and output gradients of its layers.

Every rule gives squared norms in float64 with a known error, by a function from `dprobust.clipping`: those of what
`weighted_sum` adds, element for element, and not of what it would be without round-off.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dprobust.clipping import Squares, squares, without

# Elements that the temporary tensors of one chunk of examples may hold: what stays in the cache of a CPU
# core, and what keeps any other device busy.
CPU_CHUNK, DEVICE_CHUNK = 2**21, 2**26
# To write and read an element of an explicit gradient takes as long as this many multiplications.
ELEMENT_COST = 8

CONV_WEIGHT_GRADIENTS = {
    nn.Conv1d: nn.grad.conv1d_weight,
    nn.Conv2d: nn.grad.conv2d_weight,
    nn.Conv3d: nn.grad.conv3d_weight,
}


class Use(NamedTuple):
    """One use of a parameter: its layer, its name there, the layer's input and output gradient (N, ...)."""

    layer: nn.Module
    name: str
    a: Tensor
    g: Tensor


class Measure:
    """Squared norms in float64: of rows that do not last by the function `squares`, else exactly and only once."""

    def __init__(self, squares: Squares):
        self.squares = squares
        self._found: dict[int, tuple[Tensor, Tensor]] = {}

    def lasting(self, rows: Tensor) -> Tensor:
        # With the rows themselves, so that none takes their place, and their number.
        if id(rows) not in self._found:
            self._found[id(rows)] = rows, squares(rows)
        return self._found[id(rows)][1]


class PositionSum:
    """Biases, and the affine parameters of normalisation layers: output gradients summed over positions."""

    explicit = False

    def __init__(self, parameter: nn.Parameter, uses: Sequence[Use]):
        self.per_example = reduce(torch.add, (self._gradient(parameter, *use) for use in uses))

    @staticmethod
    def _gradient(parameter: nn.Parameter, layer: nn.Module, name: str, a: Tensor, g: Tensor) -> Tensor:
        if name == "weight":
            g = g * _normalised(layer, a)
        if isinstance(layer, nn.Linear | nn.LayerNorm | nn.RMSNorm):
            if g.shape[1:] == parameter.shape:
                return g
            return g.reshape(len(g), -1, *parameter.shape).sum(1)
        return g.reshape(*g.shape[:2], -1).sum(2)

    def squared_norms(self, measure: Measure) -> Tensor:
        """(N,), float64."""
        return measure.lasting(self.per_example)

    def drop(self, missing: Tensor) -> None:
        """Let the examples `missing` (N,) add nothing."""
        self.per_example = without(self.per_example, missing)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        return torch.tensordot(weights, self.per_example, 1)


def _normalised(layer: nn.Module, a: Tensor) -> Tensor:
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return F.rms_norm(a, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(a, layer.num_groups, eps=layer.eps)
    return F.instance_norm(a, eps=layer.eps)


class Lookup:
    """Embeddings: output gradients summed over the positions that hold the same index.

    Each sum is taken once and stands at the first of its positions: a norm by way of products of pairs would cancel
    where the gradients of a word do.
    """

    explicit = False

    def __init__(self, parameter: nn.Parameter, uses: Sequence[Use]):
        self.parameter = parameter
        self.indices = torch.cat([use.a.reshape(len(use.a), -1) for use in uses], 1)
        self.g = self._merged(torch.cat([self._gradient(use.layer, use.a, use.g) for use in uses], 1))

    @staticmethod
    def _gradient(layer: nn.Embedding, a: Tensor, g: Tensor) -> Tensor:
        if layer.padding_idx is not None:
            g = g.masked_fill((a == layer.padding_idx % len(layer.weight)).unsqueeze(-1), 0)
        return g.reshape(len(g), -1, g.shape[-1])

    def _merged(self, g: Tensor) -> Tensor:
        merged = []
        for rows in chunks(g, 2 * g.shape[1] ** 2):
            indices = self.indices[rows]
            same = indices.unsqueeze(1) == indices.unsqueeze(2)
            again = same.tril(-1).any(2, keepdim=True)
            merged.append((same & ~again).to(g.dtype) @ g[rows])
        return torch.cat(merged)

    def squared_norms(self, measure: Measure) -> Tensor:
        return measure.squares(self.g)

    def drop(self, missing: Tensor) -> None:
        self.g = without(self.g, missing)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        g = self.g * weights[:, None, None]
        total = torch.zeros_like(self.parameter)
        return total.index_add_(0, self.indices.flatten(), g.flatten(0, 1))


class Product:
    """Weights of linear layers and convolutions: output gradient times input, summed over positions."""

    def __init__(self, parameter: nn.Parameter, uses: Sequence[Use]):
        self.parameter, self.uses = parameter, uses
        self.groups = getattr(uses[0].layer, "groups", 1)
        self.positions = sum(use.g[0].numel() for use in uses) // len(parameter)
        self.channels_last = all(use.a.shape[1] > 1 and use.a.stride(1) == 1 for use in uses)
        self.fan_in, self.fan_out = parameter[0].numel(), len(parameter) // self.groups
        factors, product = self.fan_in + self.fan_out, self.fan_in * self.fan_out
        self.explicit = self.positions**2 * factors > ELEMENT_COST * product
        if self.explicit:
            temporary = parameter.numel()
        else:  # in float64, if there are several positions
            temporary = 2 * self.groups * (self.positions * factors * (self.positions > 1) + self.positions**2)
        self.elements = self.groups * self.positions * self.fan_in + temporary

    def per_example(self, rows: slice) -> Tensor:
        """Gradients (n, elements) of the examples `rows`, with the elements as `restore` takes them."""
        a, g = self._factors(rows)
        return (g.mT @ a).flatten(1)

    def restore(self, gradient: Tensor) -> Tensor:
        if self.channels_last:
            out, fan_in, *kernel = self.parameter.shape
            return gradient.view(out, *kernel, fan_in).movedim(-1, 1).contiguous()
        return gradient.view(self.parameter.shape)

    def squared_norms(self, measure: Measure) -> Tensor:
        if self.positions == 1 and len(self.uses) == 1 and self.groups == 1:
            return self._of_one_position(measure)
        found = []
        for rows in chunks(self.uses[0].g, self.elements):
            a, g = self._factors(rows)
            found.append(self._of_pairs(a, g))
        return torch.cat(found)

    def _of_one_position(self, measure: Measure) -> Tensor:
        """From the norms of the two factors: nothing can cancel."""
        (use,) = self.uses
        found = [measure.squares(self._unfold(use.layer, use.a[rows])) for rows in chunks(use.g, self.elements)]
        # Only one of the factors may be too short by the error of a block; the other is also that of the bias.
        return torch.cat(found) * measure.lasting(use.g)

    def _of_pairs(self, a: Tensor, g: Tensor) -> Tensor:
        """From all pairs of positions, in float64, with what the result may be too small by.

        With M the sum of |a_t| |g_t| over the positions t (over groups, the root of the sum of squares):

        * the sum of the products of pairs, each of absolute value at most |a_s| |a_t| |g_s| |g_t|, is that of fan_in +
          fan_out + groups T^2 rounded terms: its error is at most that number times u M^2, u = 2^-53;
        * what `weighted_sum` adds is not w times the sum of g_t a_t^T: it rounds w g_t, and sums T products, in the
          precision of the gradients, which may add (T + 2) u M to the norm.

        Where positions cancel, M is far above the norm, and only there the second term is felt.
        """
        a, g = a.double(), g.double()
        aa, gg = a @ a.mT, g @ g.mT
        lengths = (aa.diagonal(dim1=-2, dim2=-1) * gg.diagonal(dim1=-2, dim2=-1)).sqrt().sum(-1)
        m = torch.linalg.vector_norm(lengths, dim=1)
        terms = self.fan_in + self.fan_out + self.groups * self.positions**2
        squared = (aa * gg).flatten(1).sum(1).clamp(min=0) + terms * torch.finfo(torch.float64).eps * m.square()
        unit = torch.finfo(self.parameter.dtype).eps / 2
        return (squared.sqrt() + (self.positions + 2) * unit * m).square()

    def drop(self, missing: Tensor) -> None:
        self.uses = [use._replace(a=without(use.a, missing), g=without(use.g, missing)) for use in self.uses]

    def weighted_sum(self, weights: Tensor) -> Tensor:
        return reduce(torch.add, (self._weighted_sum(use.layer, use.a, use.g, weights) for use in self.uses))

    def _weighted_sum(self, layer: nn.Module, a: Tensor, g: Tensor, weights: Tensor) -> Tensor:
        g = g * weights.view(-1, *[1] * (g.dim() - 1))
        if isinstance(layer, nn.Linear):
            return g.flatten(0, -2).T @ a.flatten(0, -2)
        weight_gradient, shape = CONV_WEIGHT_GRADIENTS[type(layer)], self.parameter.shape
        return weight_gradient(_pad(layer, a), shape, g, layer.stride, 0, layer.dilation, layer.groups).contiguous()

    def _factors(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Inputs (n, groups, T, fan in) and output gradients (n, groups, T, fan out) of examples `rows`."""
        a = [self._unfold(use.layer, use.a[rows]) for use in self.uses]
        g = [self._unfold_output(use.layer, use.g[rows]) for use in self.uses]
        return (a[0], g[0]) if len(self.uses) == 1 else (torch.cat(a, 2), torch.cat(g, 2))

    def _unfold_output(self, layer: nn.Module, g: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return g.reshape(len(g), 1, -1, g.shape[-1])
        return g.reshape(len(g), self.groups, g.shape[1] // self.groups, -1).mT

    def _unfold(self, layer: nn.Module, a: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return a.reshape(len(a), 1, -1, a.shape[-1])
        a, dims = _pad(layer, a), layer.weight.dim() - 2
        windows = zip(layer.weight.shape[2:], each(layer.stride, dims), each(layer.dilation, dims), strict=True)
        for dim, (size, stride, dilation) in enumerate(windows, 2):
            a = a.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
        a = a.unflatten(1, (self.groups, -1))
        positions, kernel = range(3, 3 + dims), range(3 + dims, 3 + 2 * dims)
        # Either order copies runs of elements that are neighbours in memory.
        if self.channels_last:
            return a.permute(0, 1, *positions, *kernel, 2).flatten(2, 1 + dims).flatten(3)
        return a.permute(0, 1, 2, *kernel, *positions).flatten(2, 2 + dims).flatten(3).mT


def _pad(layer: nn.Module, a: Tensor) -> Tensor:
    pads = _pads(layer)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(a, pads, mode) if any(pads) else a


def _pads(layer: nn.Module) -> list[int]:
    """What a convolution pads its input with in its forward pass, as `F.pad` takes it: last dimension first."""
    if layer.padding_mode != "zeros":
        # Which the layer does not look up in its `padding` again, though that may have changed.
        return layer._reversed_padding_repeated_twice
    dims = layer.weight.dim() - 2
    if layer.padding == "valid":
        return [0] * (2 * dims)
    if layer.padding == "same":
        spans = [d * (size - 1) for d, size in zip(each(layer.dilation, dims), layer.weight.shape[2:], strict=True)]
        return [pad for span in reversed(spans) for pad in (span // 2, span - span // 2)]
    return [pad for pad in reversed(each(layer.padding, dims)) for _ in range(2)]


def each(setting: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """A setting of a convolution for each dimension; an attribute that is edited may be one number for all."""
    values = (setting,) if isinstance(setting, int) else tuple(setting)
    return values * dims if len(values) == 1 else values


def chunks(batch: Tensor, elements: int) -> Iterator[slice]:
    """Slices of a batch that needs `elements` temporary elements an example."""
    size = max(1, (CPU_CHUNK if batch.device.type == "cpu" else DEVICE_CHUNK) // max(1, elements))
    return (slice(start, start + size) for start in range(0, len(batch), size))
