"""Clipped per-example gradient sums at little more than the cost of one plain gradient.

One forward and one backward pass yield, for every layer that owns trainable parameters, its input ``a`` and
the gradient ``g`` of the summed loss at its output; gradients of parameters are never asked for. Row i of
``a`` and ``g`` belongs to example i, so they determine its gradient:

* weights of linear layers, and of convolutions unfolded to T positions: the sum over t of ``g_t a_t^T``. Its
  squared norm is the sum over s, t of ``(a_s . a_t)(g_s . g_t)`` (Goodfellow 2015 for T = 1; the "ghost norm"
  of Li et al. 2022), or that of the explicit product, whichever costs less. Explicit products live only as
  long as a chunk of examples: they stay in cache and do not fill the memory;
* biases, and the affine parameters of normalisation layers: a sum over positions;
* embeddings: a sum over the positions that look up the same row.

A parameter used several times (shared modules, tied parameters) gets the sum over its uses before norms are
taken. A model with a parameter that is not known to be covered by these rules raises `Unsupported`.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dprobust.layers import pooling_first

# Elements that the temporary tensors of one chunk of examples may hold: what stays in the cache of a CPU
# core, and what keeps any other device busy.
CPU_CHUNK, DEVICE_CHUNK = 2**20, 2**26
# To write and read an element of an explicit gradient takes as long as this many multiplications.
ELEMENT_COST = 8

CONV_WEIGHT_GRADIENTS = {
    nn.Conv1d: nn.grad.conv1d_weight,
    nn.Conv2d: nn.grad.conv2d_weight,
    nn.Conv3d: nn.grad.conv3d_weight,
}
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

# Models known to keep the examples of a batch apart, and whether they can run on channels-last tensors.
_PROBED: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


class Unsupported(Exception):
    """A parameter is used in a way for which there is no exact rule here; the message names it."""


class Record(NamedTuple):
    """One application of a layer: its input (N, ...) and the place of its output in the autograd graph."""

    layer: nn.Module
    a: Tensor
    version: int
    edge: GradientEdge


class Use(NamedTuple):
    """One use of a parameter: its layer, its name there, the layer's input and output gradient (N, ...)."""

    layer: nn.Module
    name: str
    a: Tensor
    g: Tensor


def clipped_sum(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], x: Tensor, y: Tensor, clip: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Sum of the per-example gradients of the cross-entropy, each clipped to norm `clip`; their norms (N,).

    `parameters` are the trainable parameters of `model` by name, each once; x (N, ...), y int64 (N,), N >= 1.
    Raises `Unsupported` if some parameter has no exact rule here, ValueError if the examples of a batch mix.
    """
    layers = supported_layers(model)
    channels_last = probe(model, layers, parameters, x) and x.device.type == "cpu"
    with torch.enable_grad(), recording(model, layers, channels_last) as records:
        loss = F.cross_entropy(check_logits(model(x.detach()), len(x)), y, reduction="sum")
        outputs = _backward(loss, layers, records, parameters, len(x))
    uses: dict[nn.Parameter, list[Use]] = defaultdict(list)
    for record, g in outputs:
        for name, parameter in record.layer.named_parameters(recurse=False):
            if parameter.requires_grad:
                uses[parameter].append(Use(record.layer, name, record.a, g))
    with torch.no_grad():
        return _clip(parameters, uses, len(x), clip)


def check_logits(logits: Tensor, n: int) -> Tensor:
    """The logits; ValueError if their shape is not (n, classes)."""
    if logits.dim() != 2 or len(logits) != n:
        raise ValueError(f"the model must return logits of shape ({n}, classes), got {tuple(logits.shape)}")
    return logits


def coefficients(norms: Tensor, clip: float) -> Tensor:
    """Factors 1 / max(1, norm / clip) that clip gradients of these norms (Algorithm 1)."""
    return (clip / norms).clamp(max=1)


# Which parameters are covered.


def supported_layers(model: nn.Module) -> dict[nn.Module, str]:
    """Layers that own trainable parameters, and their names; `Unsupported` if a parameter has no rule."""
    layers: dict[nn.Module, str] = {}
    rules: dict[nn.Parameter, tuple] = {}
    for path, layer in model.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            layers[layer] = f"{path or 'the model'} ({type(layer).__name__})"
            rule = _rule(layer, name)
            if rule is None:
                raise Unsupported(f"there is no rule for the {name} of {layers[layer]}")
            if rules.setdefault(parameter, rule) != rule:
                raise Unsupported(f"the {name} of {layers[layer]} is shared with another kind of layer")
    return layers


def _rule(layer: nn.Module, name: str) -> tuple | None:
    """The class that finds the gradient of a parameter, and what all layers that share it must agree in."""
    kind = type(layer)
    if name not in ("weight", "bias") or "forward" in vars(layer):
        return None
    if kind is nn.Linear or kind in CONV_WEIGHT_GRADIENTS:
        return (Product, getattr(layer, "groups", 1)) if name == "weight" else (PositionSum,)
    if kind in NORMS and not getattr(layer, "track_running_stats", False):
        return (PositionSum,)
    if kind is nn.Embedding and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse:
        return (Lookup,)
    return None


# The pass through the model.


@contextmanager
def recording(model: nn.Module, layers: Mapping[nn.Module, str], channels_last: bool) -> Iterator[list[Record]]:
    """While it lasts, forward passes append every application of one of the `layers` to the list it yields.

    The layers compute with detached copies of their parameters, so that a gradient which still reaches a
    parameter itself comes from a use outside of its layer.
    """
    records: list[Record] = []
    sequences = [m for m in model.modules() if type(m) is nn.Sequential and "forward" not in vars(m)]
    try:
        for layer in layers:
            layer.forward = _recorded(layer, records, channels_last)
        for sequence in sequences:
            sequence.forward = pooling_first(sequence)
        yield records
    finally:
        for module in (*layers, *sequences):
            vars(module).pop("forward", None)


def _recorded(layer: nn.Module, records: list[Record], channels_last: bool) -> Callable[[Tensor], Tensor]:
    own, detached = layer._parameters, dict(layer._parameters)
    for name, parameter in layer.named_parameters(recurse=False):
        copy = parameter.detach()
        if channels_last and type(layer) is nn.Conv2d and name == "weight":
            copy = copy.clone(memory_format=torch.channels_last)
        detached[name] = copy.requires_grad_(parameter.requires_grad)

    def forward(input: Tensor) -> Tensor:
        layer._parameters = detached
        try:
            output = type(layer).forward(layer, input)
        finally:
            layer._parameters = own
        if output.requires_grad:
            # An edge, because an in-place operation would move the tensor to another place in the graph.
            records.append(Record(layer, input.detach(), input._version, get_gradient_edge(output)))
        return output

    return forward


def _backward(
    target: Tensor,
    layers: Mapping[nn.Module, str],
    records: Sequence[Record],
    parameters: Mapping[str, nn.Parameter],
    n: int,
) -> list[tuple[Record, Tensor]]:
    """Records that `target` depends on, with its gradient at their outputs; `Unsupported` if rules fail."""
    edges = [record.edge for record in records]
    gradients = torch.autograd.grad(target, [*edges, *parameters.values()], allow_unused=True)
    for name, gradient in zip(parameters, gradients[len(edges) :], strict=True):
        if gradient is not None:
            raise Unsupported(f"{name} is used outside of its layer")
    outputs = [(record, g) for record, g in zip(records, gradients, strict=False) if g is not None]
    for record, g in outputs:
        if record.a.shape[:1] != (n,) or g.shape[:1] != (n,):
            raise Unsupported(f"the first dimension of {layers[record.layer]} is not the batch")
        if record.a._version != record.version:
            raise Unsupported(f"the input of {layers[record.layer]} is overwritten")
    return outputs


def probe(model: nn.Module, layers: Mapping[nn.Module, str], parameters: Mapping[str, nn.Parameter], x: Tensor) -> bool:
    """Whether the model can run on channels-last tensors.

    The first call with at least two examples passes two of them through the model, to make sure that neither
    takes part in the output of the other (ValueError) and that row i of every layer belongs to example i
    (`Unsupported`).
    """
    if model in _PROBED:
        return _PROBED[model]
    x = x[:2].detach()
    channels_last = any(type(layer) is nn.Conv2d for layer in layers)
    with torch.enable_grad(), torch.random.fork_rng([x.device] if x.is_cuda else []):
        try:
            with recording(model, layers, channels_last):
                model(x.clone())
        except RuntimeError:
            # Code that views its tensors as contiguous ones cannot take others.
            channels_last = False
        for row in range(len(x)):
            _check_independence(model, layers, parameters, x, row)
    if len(x) > 1:
        _PROBED[model] = channels_last
    return channels_last


def _check_independence(
    model: nn.Module,
    layers: Mapping[nn.Module, str],
    parameters: Mapping[str, nn.Parameter],
    x: Tensor,
    row: int,
) -> None:
    others = [i for i in range(len(x)) if i != row]
    x = x.clone().requires_grad_(x.is_floating_point())
    with recording(model, layers, channels_last=False) as records:
        logits = check_logits(model(x.clone()), len(x))
        # Weights that differ, because the plain sum of a model's probabilities is constant.
        target = logits[row] @ torch.arange(1, logits.shape[1] + 1, device=x.device, dtype=logits.dtype)
        if x.requires_grad:
            (g,) = torch.autograd.grad(target, x, retain_graph=True, materialize_grads=True)
            if (g[others].abs() > 0).any():
                raise ValueError("the model mixes the examples of a batch: it has no per-example gradients")
        for record, g in _backward(target, layers, records, parameters, len(x)):
            if (g[others].abs() > 0).any():
                raise Unsupported(f"row i of {layers[record.layer]} does not belong to example i")


# The gradient of one parameter, from its uses.


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
            return g.reshape(len(g), -1, *parameter.shape).sum(1)
        return g.reshape(*g.shape[:2], -1).sum(2)

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.per_example.flatten(1), dim=1).square()

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
    """Embeddings: output gradients summed over the positions that hold the same index."""

    explicit = False

    def __init__(self, parameter: nn.Parameter, uses: Sequence[Use]):
        self.parameter = parameter
        self.indices = torch.cat([use.a.reshape(len(use.a), -1) for use in uses], 1)
        self.g = torch.cat([self._gradient(use.layer, use.a, use.g) for use in uses], 1)

    @staticmethod
    def _gradient(layer: nn.Embedding, a: Tensor, g: Tensor) -> Tensor:
        if layer.padding_idx is not None:
            g = g.masked_fill((a == layer.padding_idx).unsqueeze(-1), 0)
        return g.reshape(len(g), -1, g.shape[-1])

    def squared_norms(self) -> Tensor:
        squared = []
        for rows in _chunks(self.g, 2 * self.g.shape[1] ** 2):
            indices, g = self.indices[rows], self.g[rows]
            same = indices.unsqueeze(1) == indices.unsqueeze(2)
            squared.append(((g @ g.mT) * same).sum((1, 2)))
        return torch.cat(squared).clamp(min=0)

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
        fan_in, fan_out = parameter[0].numel(), len(parameter) // self.groups
        self.explicit = self.positions**2 * (fan_in + fan_out) > ELEMENT_COST * fan_in * fan_out
        squares = parameter.numel() if self.explicit else 2 * self.groups * self.positions**2
        self.elements = self.groups * self.positions * fan_in + squares

    def per_example(self, rows: slice) -> Tensor:
        """Gradients (n, elements) of the examples `rows`, with the elements as `restore` takes them."""
        a, g = self._factors(rows)
        return (g.mT @ a).flatten(1)

    def restore(self, gradient: Tensor) -> Tensor:
        if self.channels_last:
            out, fan_in, *kernel = self.parameter.shape
            return gradient.view(out, *kernel, fan_in).movedim(-1, 1).contiguous()
        return gradient.view(self.parameter.shape)

    def squared_norms(self) -> Tensor:
        squared = []
        for rows in _chunks(self.uses[0].g, self.elements):
            a, g = self._factors(rows)
            if self.positions == 1:
                products = (torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(g, dim=-1)).square()
            else:
                products = (a @ a.mT) * (g @ g.mT)
            squared.append(products.flatten(1).sum(1))
        return torch.cat(squared).clamp(min=0)

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
        a, dims = _pad(layer, a), len(layer.kernel_size)
        windows = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
        for dim, (size, stride, dilation) in enumerate(windows, 2):
            a = a.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
        a = a.unflatten(1, (self.groups, -1))
        positions, kernel = range(3, 3 + dims), range(3 + dims, 3 + 2 * dims)
        # Either order copies runs of elements that are neighbours in memory.
        if self.channels_last:
            return a.permute(0, 1, *positions, *kernel, 2).flatten(2, 1 + dims).flatten(3)
        return a.permute(0, 1, 2, *kernel, *positions).flatten(2, 2 + dims).flatten(3).mT


def _pad(layer: nn.Module, a: Tensor) -> Tensor:
    pads = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(a, pads, mode) if any(pads) else a


def _chunks(batch: Tensor, elements: int) -> Iterator[slice]:
    """Slices of a batch that needs `elements` temporary elements an example."""
    size = max(1, (CPU_CHUNK if batch.device.type == "cpu" else DEVICE_CHUNK) // elements)
    return (slice(start, start + size) for start in range(0, len(batch), size))


# Clipping.


def _clip(
    parameters: Mapping[str, nn.Parameter], uses: Mapping[nn.Parameter, Sequence[Use]], n: int, clip: float
) -> tuple[dict[str, Tensor], Tensor]:
    gradients = {name: _gradient(p, uses[p]) for name, p in parameters.items() if p in uses}
    explicit = {name: gradient for name, gradient in gradients.items() if gradient.explicit}
    squared = next(iter(parameters.values())).new_zeros(n)
    for gradient in gradients.values():
        if not gradient.explicit:
            squared += gradient.squared_norms()

    totals = {name: squared.new_zeros(parameters[name].numel()) for name in explicit}
    elements = sum(gradient.elements for gradient in explicit.values())
    for rows in _chunks(squared, elements) if explicit else ():
        products = {name: gradient.per_example(rows) for name, gradient in explicit.items()}
        for product in products.values():
            squared[rows] += torch.linalg.vector_norm(product, dim=1).square()
        weights = coefficients(squared[rows].sqrt(), clip)
        for name, product in products.items():
            totals[name].addmv_(product.T, weights)

    norms = squared.sqrt()
    weights = coefficients(norms, clip)
    sums = {}
    for name, parameter in parameters.items():
        if name in explicit:
            sums[name] = explicit[name].restore(totals[name])
        elif name in gradients:
            sums[name] = gradients[name].weighted_sum(weights)
        else:
            sums[name] = torch.zeros_like(parameter)
    return sums, norms


def _gradient(parameter: nn.Parameter, uses: Sequence[Use]) -> PositionSum | Lookup | Product:
    kind = _rule(uses[0].layer, uses[0].name)[0]
    return kind(parameter, uses)
