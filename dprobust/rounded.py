"""Clipped per-example gradient sums in bfloat16, with the bound of float32 on what one example adds.

Linear layers and convolutions compute in bfloat16 (8 bits of mantissa), and so do the gradients at their outputs;
parameters stay in float32. That yields not the gradient of an example but numbers near it. Privacy does not ask for
more, because **what is clipped is what is summed**: the norm and the sum are taken from the same rounded numbers.

* Weights of layers that an example passes at several positions (convolutions): the product is computed explicitly and
  each element rounded to bfloat16. Those numbers, as float32, are measured and summed by `dprobust.fused`.
* Weights of layers that it passes once (most linear ones): the gradient is g a^T of the rounded factors, its norm
  ||g|| ||a||. The sum takes factor times g, rounded towards zero to bfloat16, which makes no element longer; products
  of bfloat16 numbers are exact in float32, in which they are added.
* Biases, affine parameters of normalisation layers, embeddings: as in `dprobust.fused`, in float32.

So what an example adds has norm at most C (1 + 1e-6), and noise and accounting are those of float32. Where there are
no instructions for bfloat16 the same is computed, slowly.

One condition is left: the numbers of an example must not depend on the others in its batch. A product of another height
may be summed in another order, which moves a gradient by 1e-7; rounded to bfloat16, that can become 4e-3. So the first
call compares, bit by bit, examples in a batch with the same ones in smaller batches.
"""

import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dprobust import fused
from dprobust.errors import UserError
from dprobust.gradients import PositionSum, Product, Use
from dprobust.objectives import Loss, cross_entropy, losses
from dprobust.probing import check_outputs

# A batch of fewer is filled up: products of one or two rows are computed in other ways than those of many.
LEAST = 4
# Examples whose explicit products are compared in batches of several sizes.
COMPARED = 8

_INDEPENDENT: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def clipped_sum(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    x: Tensor,
    y: Tensor,
    clip: float,
    clip_function: str = "abadi",
    loss: Loss = cross_entropy,
) -> tuple[dict[str, Tensor], Tensor]:
    """Sum of the rounded per-example gradients of the loss, each clipped to norm `clip`; their norms (N,).

    `parameters` are the trainable parameters of `model` by name, float32; x (N, ...), y (N, ...), N >= 1. That the
    model keeps its examples apart is taken for granted (`dprobust.probing`).

    Raises:
        Unsupported: some parameter has no rule (`dprobust.fused`).
        UserError: parameters of another type; or the gradient of an example depends on the others in its batch by the
            way in which this machine computes.
    """
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise UserError(f"engine: bfloat16 takes parameters in float32, {name} is in {parameter.dtype}; use fused")
    layers = fused.supported_layers(model)
    channels_last = fused.probe(model, layers, parameters, x) and x.device.type == "cpu"
    if len(x) > 1 and model not in _INDEPENDENT:
        _check_independence(model, x, y, loss, channels_last)
        _INDEPENDENT.add(model)
    uses = _uses(model, parameters, x, y, loss, channels_last)
    return fused.clipped(parameters, uses, len(x), clip, clip_function, gradient)


def _check_independence(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, channels_last: bool) -> None:
    """UserError if, on this machine, examples have other gradients in smaller batches, be it in the last bit."""
    # Other weights and inputs, which hide nothing: a new head, for example, may be all zeros.
    model, random = copy.deepcopy(model).eval(), torch.Generator().manual_seed(0)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for p in parameters.values():
        p.data.copy_(torch.randn(p.shape, generator=random) / p[0].numel() ** 0.5)
    if x.is_floating_point():
        x = torch.randn(x.shape, generator=random).to(x.device)

    def numbers(x: Tensor, y: Tensor) -> list[Tensor]:
        found = []
        with torch.no_grad():
            for parameter, uses in _uses(model, parameters, x, y, loss, channels_last).items():
                found += [factor for use in uses for factor in (use.a, use.g)]
                rule = gradient(parameter, uses)
                if rule.explicit:
                    found.append(rule.per_example(slice(max(0, len(x) - COMPARED), None)))
                elif isinstance(rule, Biases):
                    found.append(rule.per_example)
        return found

    together = numbers(x, y)
    for n in sorted({1, (len(x) + 1) // 2, len(x) - 1}):
        # The last examples: of products, which fill the memory, not of all.
        if not all(
            torch.equal(few, many[len(many) - len(few) :])
            for few, many in zip(numbers(x[-n:], y[-n:]), together, strict=True)
        ):
            raise UserError(
                "engine: bfloat16 has no bound here: on this machine the gradient of an example depends on how many "
                "others are in its batch; use fused"
            )


def _uses(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    x: Tensor,
    y: Tensor,
    loss: Loss,
    channels_last: bool,
) -> dict[nn.Parameter, list[Use]]:
    """Inputs and output gradients of the layers, those of products rounded to bfloat16."""
    layers, n = fused.supported_layers(model), len(x)
    if n < LEAST:
        x, y = (torch.cat([t, t[-1:].expand(LEAST - n, *t.shape[1:])]) for t in (x, y))
    with torch.enable_grad(), fused.recording(model, layers, channels_last, factors=torch.bfloat16) as records:
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs = check_outputs(model(x.detach()), len(x))
        total = losses(loss, outputs.float(), y).sum()
        outputs = fused.backward(total, layers, records, parameters, len(x))
    rounded = []
    for record, g in outputs:
        dtype = torch.bfloat16 if fused.product_layer(record.layer) else torch.float32
        a, g = (t[:n].to(dtype) if t.is_floating_point() else t[:n] for t in (record.a, g))
        rounded.append((record._replace(a=a), g))
    return fused.uses_of(rounded)


# The gradients of one parameter.


def gradient(parameter: nn.Parameter, uses: Sequence[Use]) -> fused.Gradient:
    """The per-example gradients of a parameter, as numbers that are measured and summed as they are."""
    if not fused.product_layer(uses[0].layer):
        return fused.gradient(parameter, uses)
    if uses[0].name == "bias":
        return Biases(parameter, uses)
    explicit = Explicit(parameter, uses)
    if explicit.positions > 1 or explicit.groups > 1:
        return explicit
    return Factors(parameter, [use._replace(a=use.a.float(), g=use.g.float()) for use in uses])


class Biases(PositionSum):
    """Biases of linear layers and convolutions: sums over positions, rounded to bfloat16."""

    @staticmethod
    def _gradient(parameter: nn.Parameter, layer: nn.Module, name: str, a: Tensor, g: Tensor) -> Tensor:
        g = g.reshape(len(g), -1, len(parameter)) if isinstance(layer, nn.Linear) else g.flatten(2).mT
        # Added in float32, and only then rounded: of other types than its own it would make a copy first.
        return (g.sum(1) if g.shape[1] > 1 else g[:, 0]).to(parameter.dtype)


class Explicit(Product):
    """Weights of layers that an example passes at several positions: products in memory, some examples at a time."""

    def __init__(self, parameter: nn.Parameter, uses: Sequence[Use]):
        super().__init__(parameter, uses)
        self.explicit = True
        self.elements = self.groups * self.positions * self.fan_in + parameter.numel()

    def per_example(self, rows: slice) -> Tensor:
        """(n, elements), float32 numbers that bfloat16 has."""
        return super().per_example(rows).float()


class Factors(Product):
    """Weights of layers that an example passes once: the gradient is the product of two vectors."""

    def __init__(self, parameter: nn.Parameter, uses: Sequence[Use]):
        super().__init__(parameter, uses)
        self.explicit = False

    def _weighted_sum(self, layer: nn.Module, a: Tensor, g: Tensor, weights: Tensor) -> Tensor:
        if not isinstance(layer, nn.Linear):
            return super()._weighted_sum(layer, a, g, weights)
        g = truncated(g * weights.view(-1, *[1] * (g.dim() - 1)))
        with bfloat16_factors():
            return g.flatten(0, -2).T @ a.flatten(0, -2)


def truncated(values: Tensor) -> Tensor:
    """Float32 values, rounded towards zero to numbers that bfloat16 has too."""
    return values.view(torch.int32).bitwise_and(-(2**16)).view(torch.float32)


@contextmanager
def bfloat16_factors() -> Iterator[None]:
    """While it lasts, the factors of float32 matrix products may be rounded to bfloat16; sums stay in float32.

    It makes no difference to factors that bfloat16 has, but to the time.
    """
    # By the older of PyTorch's two interfaces, as in `dprobust.precision`: the two do not mix.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
