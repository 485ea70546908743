"""Layers that compute the same values sooner than PyTorch's own passes do, on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
# A convolution over grey or colour images: too few channels to fill the vectors of oneDNN's backward pass.
IMAGE_CHANNELS = 3
# Elements that the unfolded gradient of one chunk of examples may hold: what stays in the cache of a core.
CHUNK = 2**20


@contextmanager
def quick(model: nn.Module) -> Iterator[None]:
    """Let a model whose parameters need no gradient run forward and backward to its input the quick way."""
    forwards = {module: forward for module in model.modules() if (forward := _quick_forward(module))}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)


def _quick_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    if "forward" in vars(module):
        return None
    if type(module) is nn.Sequential:
        return pooling_first(module)
    plain = type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if plain and module.groups == 1 and module.weight.shape[1] <= IMAGE_CHANNELS:
        return lambda input: _image_convolution(module, input)
    return None


def pooling_first(sequence: nn.Sequential) -> Callable[[Tensor], Tensor]:
    """Forward pass with every ReLU moved behind the max-pooling that follows it.

    The two commute exactly, gradients included, and ReLU is left with a fraction of the elements.
    """
    modules = list(sequence)
    for i in range(len(modules) - 1):
        relu, pool = modules[i : i + 2]
        hooked = any(hooks for m in (relu, pool) for name, hooks in vars(m).items() if name.endswith("_hooks"))
        if type(relu) is nn.ReLU and type(pool) in MAX_POOLS and not pool.return_indices and not hooked:
            modules[i : i + 2] = pool, relu

    def forward(input: Tensor) -> Tensor:
        for module in modules:
            input = module(input)
        return input

    return forward


def _image_convolution(layer: nn.Conv2d, input: Tensor) -> Tensor:
    if input.requires_grad and input.dim() == 4 and input.device.type == "cpu":
        return _ImageConvolution.apply(input, layer)
    return nn.Conv2d.forward(layer, input)


class _ImageConvolution(torch.autograd.Function):
    """A convolution whose backward pass to the input is one matrix product and a fold: faster than
    oneDNN's for one to three input channels, slower for many."""

    @staticmethod
    def forward(ctx, input: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.layer, ctx.size = layer, input.shape[2:]
        return nn.Conv2d.forward(layer, input)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        # The kernel's size from the weight, as in the forward pass: the attribute is not looked at again.
        kernel, weight = layer.weight.shape[2:], layer.weight.flatten(1).T
        geometry = (layer.dilation, layer.padding, layer.stride)
        elements = len(weight) * gradient[0, 0].numel()
        chunks = gradient.flatten(2).split(max(1, CHUNK // elements))
        return torch.cat([F.fold(weight @ g, ctx.size, kernel, *geometry) for g in chunks]), None
