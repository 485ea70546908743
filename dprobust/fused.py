"""Clipped per-example gradient sums at little more than the cost of one plain gradient.

One forward and one backward pass yield, for every layer that owns trainable parameters, its input ``a`` and
the gradient ``g`` of the summed loss at its output; gradients of parameters are never asked for. Row i of
``a`` and ``g`` belongs to example i, so they determine its gradient:

* weights of linear layers, and of convolutions unfolded to T positions: the sum over t of ``g_t a_t^T``. Its
  squared norm is the sum over s, t of ``(a_s . a_t)(g_s . g_t)`` (Goodfellow 2015 for T = 1; the "ghost norm"
  of Li et al. 2022), or that of the explicit product, whichever costs less. Explicit products live only as
  long as a chunk of examples: they stay in cache and do not fill the memory. They are what is summed, so nothing
  cancels; ghost norms of several positions are float64 and have their error added (`dprobust.gradients`);
* biases, and the affine parameters of normalisation layers: a sum over positions;
* embeddings: a sum over the positions that look up the same row.

A parameter used several times (shared modules, tied parameters) gets the sum over its uses before norms are
taken. A model with a parameter that is not known to be covered by these rules raises `Unsupported`.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dprobust import clipping, probing
from dprobust.gradients import CONV_WEIGHT_GRADIENTS, Lookup, Measure, PositionSum, Product, Use, chunks
from dprobust.layers import pooling_first, quick_pooling
from dprobust.objectives import Loss, cross_entropy, losses
from dprobust.probing import check_outputs

Gradient = PositionSum | Lookup | Product

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

# Models whose layers are known to keep examples in their rows, in the modes and with the layers named, and whether
# they can run on channels-last tensors.
_PROBED: weakref.WeakKeyDictionary[nn.Module, dict[tuple, bool]] = weakref.WeakKeyDictionary()


class Unsupported(Exception):
    """A parameter is used in a way for which there is no exact rule here; the message names it."""


class Record(NamedTuple):
    """One application of a layer: its input (N, ...) and the place of its output in the autograd graph."""

    layer: nn.Module
    a: Tensor
    version: int
    edge: GradientEdge


def clipped_sum(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    x: Tensor,
    y: Tensor,
    clip: float,
    clip_function: str = "abadi",
    loss: Loss = cross_entropy,
) -> tuple[dict[str, Tensor], Tensor]:
    """Sum of the per-example gradients of the loss, each clipped to norm `clip`; their norms (N,).

    `parameters` are the trainable parameters of `model` by name, each once; x (N, ...), y (N, ...), N >= 1. That
    the model keeps its examples apart is taken for granted (`dprobust.probing`).
    Raises `Unsupported` if some parameter has no exact rule here, ValueError if the model runs a layer under autocast.
    """
    layers = supported_layers(model)
    channels_last = probe(model, layers, parameters, x) and x.device.type == "cpu"
    with torch.enable_grad(), recording(model, layers, channels_last) as records:
        total = losses(loss, check_outputs(model(x.detach()), len(x)), y).sum()
        outputs = backward(total, layers, records, parameters, len(x))
    return clipped(parameters, uses_of(outputs), len(x), clip, clip_function)


def uses_of(outputs: Sequence[tuple["Record", Tensor]]) -> dict[nn.Parameter, list[Use]]:
    """The uses of every trainable parameter, from what `backward` gives."""
    uses: dict[nn.Parameter, list[Use]] = defaultdict(list)
    for record, g in outputs:
        for name, parameter in record.layer.named_parameters(recurse=False):
            if parameter.requires_grad:
                uses[parameter].append(Use(record.layer, name, record.a, g))
    return uses


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
    if product_layer(layer):
        return (Product, getattr(layer, "groups", 1)) if name == "weight" else (PositionSum,)
    if kind in NORMS and not getattr(layer, "track_running_stats", False):
        return (PositionSum,)
    if kind is nn.Embedding and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse:
        return (Lookup,)
    return None


def product_layer(layer: nn.Module) -> bool:
    """Whether a layer multiplies its input by its weight: a linear layer, or a convolution."""
    return type(layer) is nn.Linear or type(layer) in CONV_WEIGHT_GRADIENTS


# The pass through the model.


@contextmanager
def recording(
    model: nn.Module,
    layers: Mapping[nn.Module, str],
    channels_last: bool,
    values: Mapping[nn.Parameter, Tensor] | None = None,
    factors: torch.dtype | None = None,
) -> Iterator[list[Record]]:
    """While it lasts, forward passes append every application of one of the `layers` to the list it yields.

    The layers compute with detached copies of their parameters (or of `values` in their place), so that a gradient
    which still reaches a parameter itself comes from a use outside of its layer. With `factors` linear layers and
    convolutions compute in that type.
    """
    records: list[Record] = []
    own = [m for m in model.modules() if "forward" not in vars(m)]
    sequences, pools = ([m for m in own if type(m) is kind] for kind in (nn.Sequential, nn.MaxPool2d))
    try:
        for layer, name in layers.items():
            layer.forward = _recorded(layer, name, records, channels_last, values or {}, factors)
        for sequence in sequences:
            sequence.forward = pooling_first(sequence)
        for pool in pools if factors else ():  # in float32 PyTorch's own is as fast
            pool.forward = quick_pooling(pool)
        yield records
    finally:
        for module in (*layers, *sequences, *pools):
            vars(module).pop("forward", None)


def _recorded(
    layer: nn.Module,
    path: str,
    records: list[Record],
    channels_last: bool,
    values: Mapping[nn.Parameter, Tensor],
    factors: torch.dtype | None,
) -> Callable[[Tensor], Tensor]:
    own, detached = layer._parameters, dict(layer._parameters)
    dtype = next(layer.parameters(recurse=False)).dtype
    cast = factors if product_layer(layer) else None
    for name, parameter in layer.named_parameters(recurse=False):
        copy = values.get(parameter, parameter).detach()
        copy = copy.to(cast) if cast else copy
        if channels_last and type(layer) is nn.Conv2d and name == "weight":
            copy = copy.clone(memory_format=torch.channels_last)
        detached[name] = copy.requires_grad_(parameter.requires_grad)

    def forward(input: Tensor) -> Tensor:
        input = input.to(cast) if cast else input
        layer._parameters = detached
        try:
            output = type(layer).forward(layer, input)
        finally:
            layer._parameters = own
        if factors is None and any(t.is_floating_point() and t.dtype != dtype for t in (input, output)):
            raise ValueError(
                f"{path} has parameters in {dtype}, but computes {output.dtype} from {input.dtype}: take autocast and "
                'casts out of the model, or use the engine "functional"'
            )
        if output.requires_grad:
            # An edge, because an in-place operation would move the tensor to another place in the graph.
            records.append(Record(layer, input.detach(), input._version, get_gradient_edge(output)))
        return output

    return forward


def backward(
    target: Tensor,
    layers: Mapping[nn.Module, str],
    records: Sequence[Record],
    parameters: Mapping[str, nn.Parameter],
    n: int,
    retain_graph: bool = False,
) -> list[tuple[Record, Tensor]]:
    """Records that `target` depends on, with its gradient at their outputs; `Unsupported` if rules fail."""
    edges = [record.edge for record in records]
    gradients = torch.autograd.grad(
        target, [*edges, *parameters.values()], allow_unused=True, retain_graph=retain_graph
    )
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

    The first call (in a mode, with these layers) passes a few examples like those of x through the model with random
    weights, to make sure that row i of every layer belongs to example i (`Unsupported`).
    """
    known, now = _PROBED.setdefault(model, {}), (probing.mode(model), *layers.values())
    if now in known:
        return known[now]
    channels_last = any(type(layer) is nn.Conv2d for layer in layers)
    with torch.enable_grad(), probing.seeded(x, 0):
        try:
            with recording(model, layers, channels_last):
                model(x[:2].clone())
        except RuntimeError as error:
            if probing.out_of_memory(error):
                raise
            # Code that views its tensors as contiguous ones cannot take others.
            channels_last = False
        generator, given = torch.Generator().manual_seed(0), probing.given(x)
        # Of examples that are in order, say by length, the flipped ones are not.
        batches = given, given.flip(0), probing.drawn(x, generator)
        for batch in batches:
            own = {name: p.detach() for name, p in model.named_parameters()}
            for weights in (probing.random_weights(model, generator), own):
                try:
                    _check_rows(model, layers, parameters, batch, weights)
                    break
                except Unsupported:
                    raise
                except Exception:
                    # Arbitrary weights and pixels may be what a model cannot take; its own and real ones are not.
                    if weights is own and batch is not batches[-1]:
                        raise
    if probing.telling(x):
        known[now] = channels_last
    return channels_last


def _check_rows(
    model: nn.Module,
    layers: Mapping[nn.Module, str],
    parameters: Mapping[str, nn.Parameter],
    x: Tensor,
    weights: Mapping[str, Tensor],
) -> None:
    values = {p: weights[name].detach().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
    trained = {name: values[p] for name, p in parameters.items()}
    state = {name: values[p] for name, p in model.named_parameters()}
    state |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    with recording(model, layers, channels_last=False, values=values) as records:
        outputs = check_outputs(torch.func.functional_call(model, state, (x.clone(),)), len(x)).reshape(len(x), -1)
        # Weights that differ, because the plain sum of a model's probabilities is constant.
        targets = outputs @ torch.arange(1, outputs.shape[1] + 1, device=x.device, dtype=outputs.dtype)
        for row, target in enumerate(targets):
            others = [i for i in range(len(x)) if i != row]
            for record, g in backward(target, layers, records, trained, len(x), retain_graph=True):
                if (g[others].abs() > 0).any():
                    raise Unsupported(f"row i of {layers[record.layer]} does not belong to example i")


# Clipping.


def gradient(parameter: nn.Parameter, uses: Sequence[Use]) -> Gradient:
    """The per-example gradients of a parameter, by its rule."""
    return _rule(uses[0].layer, uses[0].name)[0](parameter, uses)


def clipped(
    parameters: Mapping[str, nn.Parameter],
    uses: Mapping[nn.Parameter, Sequence[Use]],
    n: int,
    clip: float,
    clip_function: str,
    rule: Callable[[nn.Parameter, Sequence[Use]], Gradient] = gradient,
) -> tuple[dict[str, Tensor], Tensor]:
    """Clipped sum and norms (n,) of the per-example gradients that `rule` finds from the uses of a parameter."""
    with torch.no_grad():
        # Anywhere else than on a CPU, to ask whether care is needed would be to wait for the device.
        careful = next(iter(parameters.values())).device.type != "cpu"
        found = None if careful else _clip(parameters, uses, n, clip, clip_function, rule, careful=False)
        return found or _clip(parameters, uses, n, clip, clip_function, rule, careful=True)


def _clip(
    parameters: Mapping[str, nn.Parameter],
    uses: Mapping[nn.Parameter, Sequence[Use]],
    n: int,
    clip: float,
    clip_function: str,
    rule: Callable[[nn.Parameter, Sequence[Use]], Gradient],
    careful: bool,
) -> tuple[dict[str, Tensor], Tensor] | None:
    """Clipped sum and norms; without care None if the bound does not hold, or a gradient is not finite."""
    measure = Measure(clipping.squares if careful else clipping.squares_by_blocks)
    gradients = {name: rule(p, uses[p]) for name, p in parameters.items() if p in uses and p.numel()}
    explicit = {name: gradient for name, gradient in gradients.items() if gradient.explicit}
    first = next(iter(parameters.values()))
    squared = first.new_zeros(n, dtype=torch.float64)
    for gradient in gradients.values():
        if not gradient.explicit:
            squared += gradient.squared_norms(measure)

    totals = {name: first.new_zeros(parameters[name].numel()) for name in explicit}
    elements = sum(gradient.elements for gradient in explicit.values())
    for rows in chunks(squared, elements) if explicit else ():
        products = {name: gradient.per_example(rows) for name, gradient in explicit.items()}
        for product in products.values():
            squared[rows] += measure.squares(product)
        norms, weights = clipping.factors(squared[rows], first.dtype, clip, clip_function)
        if careful and (squared.device.type != "cpu" or not norms.isfinite().all()):
            products = {name: clipping.without(p, ~norms.isfinite()) for name, p in products.items()}
        for name, product in products.items():
            totals[name].addmv_(product.T, weights)

    norms, weights = clipping.factors(squared, first.dtype, clip, clip_function)
    if careful:
        for name, gradient in gradients.items():
            if name not in explicit:
                gradient.drop(~norms.isfinite())
    elif not clipping.bounded(norms, weights, squared, sum(p.numel() for p in parameters.values()), clip):
        return None

    sums = {}
    for name, parameter in parameters.items():
        if name in explicit:
            sums[name] = explicit[name].restore(totals[name])
        elif name in gradients:
            sums[name] = gradients[name].weighted_sum(weights)
        else:
            sums[name] = torch.zeros_like(parameter)
    return sums, norms
