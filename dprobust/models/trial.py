"""A network of unknown make, tried on a few images before anything is measured on it."""

import copy

import torch
from torch import Tensor, nn

from dprobust.errors import UserError
from dprobust.models.settings import Shape

IMAGES = 4
TOLERANCE = 1e-3
"""Of logits that must be equal, relative to the largest: kernels round differently at other batch sizes."""


class Contiguous(nn.Module):
    """A network whose code views its tensors as contiguous ones: it and its input are kept so."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(_contiguous(x))

    def _apply(self, fn, recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = _contiguous(tensor.data)
        return self


def takes_channels_last(network: nn.Module, shape: Shape) -> bool:
    """Whether a network computes the same on channels-last tensors as on contiguous ones."""
    x = _images(shape, IMAGES)
    twin = copy.deepcopy(network).to(memory_format=torch.channels_last)
    for gradients in (False, True):  # other kernels, which may leave other strides
        with torch.set_grad_enabled(gradients):
            try:
                if not _close(twin(x.contiguous(memory_format=torch.channels_last)), network(x)):
                    return False
            except RuntimeError:
                return False
    return True


def check_network(model: nn.Module, shape: Shape, classes: int, what: str, trained: bool = True) -> None:
    """Raise UserError unless a network maps images to logits as every metric needs it.

    It must return float logits (N, classes) for any N, the same each time and each row a function of its own image
    alone, and no probabilities. Of a trained network a gradient that is not 0 must reach the images.

    Args:
        model: in evaluation mode, on a CPU.
        shape: (C, H, W) of an image.
        classes: number of classes.
        what: names the network in messages.
        trained: whether the network is trained; one that is not may have logits that are 0 everywhere.
    """
    x = _images(shape, IMAGES).requires_grad_()
    one, logits, again = (_logits(model, part, classes, what) for part in (x[:1], x, x))
    if not logits.isfinite().all():
        raise UserError(f"{what}: logits are not finite")
    if not _close(again, logits):
        raise UserError(f"{what}: gives other logits for the same images each time; export it in evaluation mode")
    if not _close(one, logits[:1]):
        raise UserError(
            f"{what}: the logits of an image depend on the other images of its batch; export it in evaluation mode"
        )
    if (logits >= 0).all() and (logits.sum(1) - 1).abs().max() < TOLERANCE:
        raise UserError(
            f"{what}: returns probabilities, whose gradients vanish where it is confident; leave out the softmax"
        )
    if trained:
        _check_gradient(logits, x, what)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript ends with what happened, after a traceback of its own.
    told = lines[-1] if lines and "TorchScript interpreter" in lines[0] else "".join(lines[:1])
    return f"{type(error).__name__}: {told[:300]}" if told else type(error).__name__


def _contiguous(x: Tensor) -> Tensor:
    # With one channel a channels-last tensor is contiguous too; only its strides tell a convolution what it is.
    if x.stride() == torch.empty(x.shape, device="meta").stride():
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _images(shape: Shape, n: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def _logits(model: nn.Module, x: Tensor, classes: int, what: str) -> Tensor:
    found = " x ".join(map(str, x.shape))
    try:
        logits = model(x)
    except Exception as error:
        if "size()[0]" in str(error):
            raise UserError(
                f"{what}: takes batches of a fixed size only; export it with a dynamic batch dimension, "
                'dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)'
            ) from None
        raise UserError(f"{what}: does not take images of {found} ({first_line(error)})") from None
    if not isinstance(logits, Tensor):
        raise UserError(f"{what}: returns a {type(logits).__name__}, expected logits ({len(x)}, {classes})")
    if tuple(logits.shape) != (len(x), classes) or not logits.is_floating_point():
        told = f"{str(logits.dtype).removeprefix('torch.')} {tuple(logits.shape)}"
        raise UserError(f"{what}: returns {told} for images {found}, expected float logits ({len(x)}, {classes})")
    return logits


def _check_gradient(logits: Tensor, x: Tensor, what: str) -> None:
    told = "quantised, detached or thresholded networks cannot be attacked by gradients"
    weights = torch.linspace(-1, 1, logits.shape[1])
    gradient = None
    if logits.requires_grad:
        try:
            (gradient,) = torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)
        except RuntimeError as error:
            raise UserError(f"{what}: has no gradient ({first_line(error)}); {told}") from None
    if gradient is None:
        raise UserError(f"{what}: no gradient reaches the images; {told}")
    if not gradient.isfinite().all():
        raise UserError(f"{what}: the gradient with respect to the images is not finite")
    if not gradient.any():
        raise UserError(f"{what}: the gradient with respect to the images is 0 everywhere; {told}")


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max().clamp(min=TOLERANCE))
