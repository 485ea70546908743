"""Shared ground of the robustness metrics: a model at rest, checked inputs, bounded batches, input gradients.

A classifier here is any `nn.Module` that maps float images (N, C, H, W) in [0, 1] to logits (N, K); input
normalisation lives inside it. It may have no parameters, as frozen TorchScript has none. Images and model may be on
different devices: batches travel to the model. Convolutions follow the memory format of model and images, and on a CPU
channels_last is faster: convert the model once, `model.to(memory_format=torch.channels_last)`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from dprobust.layers import quick
from dprobust.memory import Halved


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode without parameter gradients, and restore it after."""
    # Flag by flag: frozen TorchScript has no `training`, an exported program no `eval()`.
    training = [module for module in model.modules() if getattr(module, "training", False)]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for module in training:
        module.training = False
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with quick(model):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


def home(model: nn.Module, x: Tensor) -> torch.device:
    """The device of a model: of its first parameter or buffer, and of the images `x` if it has neither."""
    return next(itertools.chain(model.parameters(), model.buffers()), x).device


def map_batches(
    model: nn.Module, function: Callable[..., tuple[Tensor, ...]], batch_size: int, *tensors: Tensor
) -> list[Tensor]:
    """Apply a function to slices of tensors of equal length, the model at rest, and join what it returns.

    The slices hold at most batch_size and are equal to within one: an odd image left over at the end would go
    through the kernels of matrix times vector, which round otherwise.

    Slices go to the model's device, results come back to the first tensor's: the model's device holds one
    batch at a time, and where memory does not suffice for that, a part of it (`dprobust.memory`). Runs without
    gradient: `function` asks for what it needs (`input_gradient`).
    """
    check_count("batch_size", batch_size)
    back, device = tensors[0].device, home(model, tensors[0])
    slices = math.ceil(len(tensors[0]) / batch_size)
    there = Halved(lambda *batch: [r.to(back) for r in function(*(part.to(device) for part in batch))], _joined)
    with at_rest(model), torch.no_grad():
        batches = zip(*(tensor.tensor_split(slices) for tensor in tensors), strict=True)
        return _joined([there(*batch) for batch in batches])


def _joined(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def compact(values: Tensor, count: int) -> Tensor:
    """Whole numbers from 0 to count - 1 in a small type: uint8, int16 where count is above 256, int32 above 32,768."""
    return values.to(torch.uint8 if count <= 256 else torch.int16 if count <= 32_768 else torch.int32)


def classes(logits: Tensor) -> Tensor:
    """Class of the largest logit along the last axis, in the type of `compact`."""
    return compact(logits.argmax(-1), logits.shape[-1])


def predict(model: nn.Module, x: Tensor, batch_size: int = 256) -> Tensor:
    """Classes int64 (N,) the model gives to float images (N, C, H, W) in [0, 1]."""
    check_images(model, x, torch.zeros(len(x), dtype=torch.int64))
    return map_batches(model, lambda images: (model(images).argmax(1),), batch_size, x)[0]


def input_gradient(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of the summed per-example loss with respect to the images, and the logits (N, K)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return gradient, logits.detach()


def logit_differences(model: nn.Module, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the other K-1 classes minus that of a reference class, and their input gradients.

    Returns differences (N, K-1) and gradients (N, K-1, C, H, W); column j is class (reference + 1 + j) mod K.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        classes = logits.shape[1]
        others = (reference[:, None] + torch.arange(1, classes, device=x.device)) % classes
        differences = logits.gather(1, others) - logits.gather(1, reference[:, None])
        # One backward pass a class through one graph: faster on a CPU than vmap or K copies of the batch.
        gradients = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in differences.unbind(1)]
    return differences.detach(), torch.stack(gradients, 1)


def check_images(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x are images in [0, 1], y their classes, and the model returns logits."""
    if x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(f"x must be float images of shape (N, C, H, W), found {x.dtype} {tuple(x.shape)}")
    if not (x.amin() >= 0 and x.amax() <= 1):
        raise ValueError(f"x must lie in [0, 1], found {x.amin().item():g} to {x.amax().item():g}")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise ValueError(f"y must be int64 of shape ({len(x)},), found {y.dtype} {tuple(y.shape)}")
    parameter = next(model.parameters(), x)
    if parameter.dtype != x.dtype:
        raise ValueError(f"x is {x.dtype}, the model's parameters are {parameter.dtype}")
    with at_rest(model), torch.no_grad():
        logits = model(x[:1].to(home(model, x)))
    if logits.ndim != 2 or len(logits) != 1 or logits.shape[1] < 2:
        raise ValueError(f"the model must return logits (1, K), K >= 2, for one image, found {tuple(logits.shape)}")
    if y.amin() < 0 or y.amax() >= logits.shape[1]:
        raise ValueError(f"y must lie in 0 to {logits.shape[1] - 1}, found {y.amin().item()} to {y.amax().item()}")


def check_size(name: str, value: float) -> None:
    """Raise ValueError unless value is a finite number >= 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, found {value}")


def check_count(name: str, value: int) -> None:
    """Raise ValueError unless value is a whole number >= 1."""
    if not (isinstance(value, Integral) and value >= 1):
        raise ValueError(f"{name} must be a whole number >= 1, found {value}")


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError unless value is one of the choices, an iterable of strings."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
