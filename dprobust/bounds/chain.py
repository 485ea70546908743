"""A network as a chain: blocks of affine layers, with a maximum (ReLU, max-pooling, or both at once) between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dprobust.errors import UserError
from dprobust.models.networks import Normalize, Temperature

Shape = tuple[int, int, int]
"""(C, H, W) of a map; a vector of F numbers is the map (F, 1, 1)."""


@dataclass(frozen=True)
class Window:
    """What a layer looks at: kernel, stride, padding and dilation, each along height and width."""

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine layer.

    Attributes:
        window: of a convolution; of every other layer that of a single place.
        flat: its output is a vector, each entry of which may depend on the whole map.
        forward: maps (N, C, H, W) without the bias.
        absolute: the same with all weights replaced by their absolute values.
        back: coefficients on a crop of the output -> those on the crop of the input that it depends on.
        bias: of each output channel (C,), or None.
        terms: the most products that one output, and one coefficient of `back`, sums.
    """

    window: Window
    flat: bool
    forward: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    bias: Tensor | None
    terms: tuple[int, int]

    def value(self, x: Tensor) -> Tensor:
        """The layer's output."""
        y = self.forward(x)
        return y if self.bias is None else y + self.bias[:, None, None]


@dataclass(frozen=True)
class Maximum:
    """The maximum over windows, with `floor` of 0 as well: a ReLU, max-pooling, or one after the other."""

    window: Window = Window()
    floor: bool = True

    @property
    def places(self) -> list[tuple[int, int]]:
        """The members of a window, as (row, column)."""
        return [(i, j) for i in range(self.window.size[0]) for j in range(self.window.size[1])]

    def members(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, C, H', W'): the K members of each window."""
        (k, wide), (s, t) = self.window.size, self.window.stride
        height, width = (x.shape[2] - k) // s + 1, (x.shape[3] - wide) // t + 1
        return torch.stack(
            [x[:, :, i : i + s * (height - 1) + 1 : s, j : j + t * (width - 1) + 1 : t] for i, j in self.places], 1
        )

    def value(self, x: Tensor) -> Tensor:
        """The layer's output."""
        y = self.members(x).amax(1)
        return y.clamp_min(0) if self.floor else y


@dataclass
class Block:
    """Affine layers, and the maximum after them; None after the last."""

    layers: list[Affine] = field(default_factory=list)
    maximum: Maximum | None = None
    inputs: list[Shape] = field(default_factory=list)
    """Shapes that the layers take."""
    shape: Shape = (0, 0, 0)
    """Shape that the layers make."""


def chain(model: nn.Module, shape: Shape) -> list[Block]:
    """The blocks of a network that takes images of a shape; parameters are shared with it.

    Raises:
        UserError: a layer that is neither affine nor ReLU nor max-pooling, named.
    """
    blocks, now = [Block()], shape
    for name, module in _layers(model, ""):
        if type(module) in IGNORED:
            continue
        last = blocks[-1]
        if (maximum := _maximum(name, module)) is not None:
            merged = _merged(blocks[-2].maximum, maximum) if len(blocks) > 1 and not last.layers else None
            if merged:
                blocks[-2].maximum = merged
            else:
                last.maximum, last.shape = maximum, now
                blocks.append(Block())
            now = tuple(maximum.value(torch.zeros(1, *now)).shape[1:])
            continue
        affine = _affine(name, module, now)
        last.inputs.append(now)
        last.layers.append(affine)
        like = next((p for p in model.parameters()), torch.zeros(()))
        now = tuple(affine.value(like.new_zeros(1, *now)).shape[1:])
        last.shape = now
    if not blocks[-1].layers:
        blocks[-1].shape = now
    if now[1:] != (1, 1):
        raise UserError(f"bounds: the network ends with a map {now}, not with logits")
    return blocks


IGNORED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Layers that do nothing in evaluation mode."""


def _layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a sequence, of those within it too, in their order."""
    if type(module) is nn.Sequential:
        for child, layer in module.named_children():
            yield from _layers(layer, f"{name}.{child}" if name else child)
    else:
        yield name, module


def _refused(name: str, module: nn.Module, why: str = "") -> UserError:
    what = f"layer {name} ({type(module).__name__})" if name else f"the network ({type(module).__name__})"
    told = why or "is neither affine nor ReLU nor max-pooling in a Sequential"
    return UserError(f"bounds: {what} {told}: there are no bounds for it; leave out certificates")


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _maximum(name: str, module: nn.Module) -> Maximum | None:
    if type(module) is nn.ReLU:
        return Maximum()
    if type(module) is not nn.MaxPool2d:
        return None
    if module.ceil_mode or module.return_indices or _pair(module.padding) != (0, 0) or _pair(module.dilation) != (1, 1):
        raise _refused(name, module, "has padding, dilation, ceil_mode or return_indices")
    return Maximum(Window(_pair(module.kernel_size), _pair(module.stride)), floor=False)


def _merged(first: Maximum, second: Maximum) -> Maximum | None:
    """Both in one, if one of them is a ReLU alone: the two commute."""
    single = Window()
    if first.window == single or second.window == single:
        window = second.window if first.window == single else first.window
        return Maximum(window, first.floor or second.floor)
    return None


def _affine(name: str, module: nn.Module, shape: Shape) -> Affine:
    kind = type(module)
    if kind is nn.Conv2d:
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise _refused(name, module, f"has padding {module.padding!r} of mode {module.padding_mode}")
        window = Window(*(_pair(v) for v in (module.kernel_size, module.stride, module.padding, module.dilation)))
        return _convolution(module.weight, module.bias, window, module.groups)
    if kind is nn.AvgPool2d:
        padding = _pair(module.padding)
        if module.ceil_mode or module.divisor_override or (padding != (0, 0) and not module.count_include_pad):
            raise _refused(name, module, "has ceil_mode, divisor_override or padding that is not counted")
        size = _pair(module.kernel_size)
        weight = torch.full((shape[0], 1, *size), 1 / (size[0] * size[1]))
        return _convolution(weight, None, Window(size, _pair(module.stride), padding), shape[0])
    if kind is nn.Linear:
        if shape[1:] != (1, 1) or shape[0] != module.in_features:
            raise _refused(name, module, f"takes a map {shape} that is not flattened")
        return _linear(module.weight, module.bias)
    if kind is nn.Flatten:
        if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
            raise _refused(name, module, "does not flatten from axis 1 to the last")
        return _flatten(shape)
    if kind is Normalize:
        return _scale(1 / module.std.flatten(), -module.mean.flatten() / module.std.flatten())
    if kind is Temperature:
        return _scale(torch.tensor([1 / module.temperature]), None)
    raise _refused(name, module)


def _convolution(weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Affine:
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    own, past = window.padding, (0, 0)

    def forward(x: Tensor, kernel: Tensor = weight) -> Tensor:
        return F.conv2d(x, kernel.to(x.dtype), None, window.stride, own, window.dilation, groups)

    def back(a: Tensor) -> Tensor:
        return F.conv_transpose2d(a, weight.to(a.dtype), None, window.stride, past, past, groups, window.dilation)

    places = weight[0, 0].numel()
    terms = (weight.shape[1] * places, weight.shape[0] // groups * places)
    return Affine(window, False, forward, lambda x: forward(x, weight.abs()), back, bias, terms)


def _linear(weight: Tensor, bias: Tensor | None) -> Affine:
    weight, bias = weight.detach(), None if bias is None else bias.detach()

    def forward(x: Tensor, matrix: Tensor = weight) -> Tensor:
        return (x.flatten(1) @ matrix.to(x.dtype).T)[:, :, None, None]

    def back(a: Tensor) -> Tensor:
        return (a.flatten(1) @ weight.to(a.dtype))[:, :, None, None]

    terms = (weight.shape[1], weight.shape[0])
    return Affine(Window(), False, forward, lambda x: forward(x, weight.abs()), back, bias, terms)


def _flatten(shape: Shape) -> Affine:
    def forward(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :, None, None]

    return Affine(Window(), True, forward, forward, lambda a: a.reshape(-1, *shape), None, (1, 1))


def _scale(factor: Tensor, shift: Tensor | None) -> Affine:
    """factor x + shift, by channel. Their own rounding, and the subtraction's, count as three more terms."""

    def forward(x: Tensor) -> Tensor:
        return x * factor.to(x.dtype)[:, None, None]

    def absolute(x: Tensor) -> Tensor:
        return x * factor.to(x.dtype).abs()[:, None, None]

    return Affine(Window(), False, forward, absolute, forward, shift, (4, 4))
