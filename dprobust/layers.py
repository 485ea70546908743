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


def quick_pooling(layer: nn.MaxPool2d) -> Callable[[Tensor], Tensor]:
    """Forward pass of max-pooling, by `_HalvingPool` where that is the same."""

    def forward(input: Tensor) -> Tensor:
        same = input.dim() == 4 and input.device.type == "cpu" and input.is_floating_point()
        # In memory the channels of a pixel are neighbours.
        if same and _halves(layer) and min(input.shape) > 1 and input.is_contiguous(memory_format=torch.channels_last):
            return _HalvingPool.apply(input)
        return type(layer).forward(layer, input)

    return forward


def _halves(layer: nn.MaxPool2d) -> bool:
    def all_are(setting: int | tuple[int, ...], value: int) -> bool:
        return setting in (value, (value, value))

    windows = all_are(layer.kernel_size, 2) and all_are(layer.stride, 2) and all_are(layer.dilation, 1)
    return windows and all_are(layer.padding, 0) and not layer.ceil_mode and not layer.return_indices


class _HalvingPool(torch.autograd.Function):
    """Max-pooling in windows of 2 x 2, first of neighbouring rows, whose elements are long runs in memory, then of what
    is left in a row. Where values are equal the upper gets the gradient, or the left one."""

    @staticmethod
    def forward(ctx, input: Tensor) -> Tensor:
        height, width = (size - size % 2 for size in input.shape[2:])
        pixels = input.permute(0, 2, 3, 1)[:, :height, :width]
        upper, lower = pixels[:, ::2], pixels[:, 1::2]
        rows = torch.maximum(upper, lower)
        left, right = rows[:, :, ::2], rows[:, :, 1::2]
        ctx.shape, ctx.rises = input.shape, (lower - upper, right - left)
        return torch.maximum(left, right).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (n, channels, height, width), (down, across) = ctx.shape, ctx.rises
        left, right = _divided(gradient.permute(0, 2, 3, 1), across)
        rows = torch.stack([left, right], 3).view(down.shape)
        whole = height % 2 == width % 2 == 0
        found = (gradient.new_empty if whole else gradient.new_zeros)(n, height, width, channels)
        pixels = found[:, : height - height % 2, : width - width % 2]
        upper, lower = _divided(rows, down)
        pixels[:, ::2], pixels[:, 1::2] = upper, lower
        return found.permute(0, 3, 1, 2)


def _divided(gradient: Tensor, rise: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the maximum of two tensors: to the second where it is above the first by a positive `rise`."""
    second = torch.ops.aten.threshold_backward(gradient, rise, 0)
    return gradient - second, second


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
