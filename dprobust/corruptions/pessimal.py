"""Pessimal noise for a classifier: of all noise of one size, the distribution that hurts it most.

The release of MNIST-C has a matrix that was made for one network. This module repeats its optimisation for
any network, and finds its outcome sooner; it is the only part of the corruptions that needs PyTorch.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dprobust.corruptions.common import check_images
from dprobust.corruptions.noise import PESSIMAL_NORM
from dprobust.inference import at_rest, check_count

Schedule = Sequence[tuple[int, float]]
"""Epochs and their learning rate, one pair after the other."""

Progress = Callable[[int, float], object]
"""Called after each epoch with its number, from 1, and its mean loss."""


def pessimal_matrix(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    schedule: Schedule = ((45, 1000.0), (45, 100.0), (45, 1.0)),
    batch_size: int = 100,
    progress: Progress | None = None,
) -> np.ndarray:
    """Find W such that noise z W, z ~ N(0, I), scaled to `PESSIMAL_NORM`, maximises the loss of a classifier.

    As in the release: stochastic gradient ascent, from the identity, on the mean cross-entropy of the images
    plus noise, a 14x14 tile repeated 2x2, clamped to [0, 1]. The defaults are those of the release, which
    used all 60,000 training images; `pessimal_pattern` gets there much sooner.

    Args:
        model: trained classifier that maps float32 (N, 1, 28, 28) in [0, 1] to logits; used in evaluation
            mode and left as it was.
        images: uint8 (N, 28, 28), clean training images.
        labels: integers (N,), their classes.
        seed: of the order of the images and of z. On a CPU equal arguments give equal bytes.
        schedule: epochs and learning rates.
        batch_size: images a step.
        progress: told of each epoch.

    Returns:
        W, float32 (196, 196), the `pattern` that ``corrupt(images, "pessimal_noise", ...)`` takes.

    Raises:
        ValueError: images, labels or batch size malformed.
    """
    matrix = torch.eye(196, device=_device(model))
    random = torch.Generator().manual_seed(seed)
    _report(_ascend(matrix, model, images, labels, schedule, batch_size, random), progress)
    return matrix.cpu().numpy()


def pessimal_pattern(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    schedule: Schedule = ((2, 1000.0),),
    refinement: Schedule = ((1, 0.3),),
    batch_size: int = 50,
    progress: Progress | None = None,
) -> np.ndarray:
    """Find the one pattern whose sign is left to chance in pessimal noise, in seconds and from 10,000 images.

    Given time, `pessimal_matrix` ends near rank one, and so did the release: its rows are multiples of one
    pattern. Most of the time goes into the decay of other patterns. So this takes the first right singular
    vector of a matrix that has begun to prefer one, and goes on with the same ascent from that vector alone.

    Accuracy in % on noisy MNIST test images, and the time on one CPU core. `pessimal_matrix`: 60,000 images,
    the schedule of the release (the LeNet: a third of its epochs); this: 10,000 images, seeds 0 to 4.

    ==================  =====  =================  =========  ==================  =========
    network             clean  `pessimal_matrix`  time       `pessimal_pattern`  time
    ==================  =====  =================  =========  ==================  =========
    LeNet 20-50-500-10  98.3   84.9 to 85.5       20 min     83.7 to 84.7        11 to 17 s
    2 conv, 1 linear    97.9   74.7 to 75.5       14 min     74.2 to 75.4        2 s
    784-128-10          96.0   58.9 to 60.1       4 min      58.2 to 60.4        1 s
    ==================  =====  =================  =========  ==================  =========

    Args:
        refinement: epochs and learning rates of the ascent from the pattern alone.
        model, images, labels, seed, schedule, batch_size, progress: as for `pessimal_matrix`.

    Returns:
        The pattern, float32 (14, 14) of norm 1; ``corrupt(images, "pessimal_noise", ...)`` takes it as well.

    Raises:
        ValueError: images, labels or batch size malformed.
    """
    matrix = torch.eye(196, device=_device(model))
    random = torch.Generator().manual_seed(seed)
    epochs = _report(_ascend(matrix, model, images, labels, schedule, batch_size, random), progress)
    pattern = torch.linalg.svd(matrix.double()).Vh[:1].float()
    _report(_ascend(pattern, model, images, labels, refinement, batch_size, random), progress, epochs)
    return F.normalize(pattern).view(14, 14).cpu().numpy()


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def _ascend(
    matrix: Tensor,
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    schedule: Schedule,
    batch_size: int,
    random: torch.Generator,
) -> Iterator[float]:
    """Raise the loss under noise z W by steps of W (k, 196), in place; yield the mean loss of each epoch."""
    check_images(images)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0:
        raise ValueError(f"labels must be {len(images)} > 0 integers, found {labels.dtype} {labels.shape}")
    check_count("batch_size", batch_size)
    device = matrix.device
    x = torch.tensor(images, device=device)
    y = torch.tensor(labels, device=device, dtype=torch.int64)
    variable = matrix.detach().requires_grad_()
    with at_rest(model):
        for lr in (lr for epochs, lr in schedule for _ in range(epochs)):
            total = torch.zeros((), device=device)
            for batch in torch.randperm(len(x), generator=random).split(batch_size):
                z = torch.randn(len(batch), len(matrix), generator=random).to(device)
                batch = batch.to(device)
                noise = (PESSIMAL_NORM * F.normalize(z @ variable)).view(-1, 1, 14, 14).repeat(1, 1, 2, 2)
                loss = F.cross_entropy(model((x[batch, None] / 255 + noise).clamp(0, 1)), y[batch])
                (gradient,) = torch.autograd.grad(loss, variable)
                matrix += lr * gradient
                total += loss.detach() * len(batch)
            yield total.item() / len(x)


def _report(losses: Iterator[float], progress: Progress | None, before: int = 0) -> int:
    """Run an ascent, tell of each epoch, and return the number of the last."""
    epoch = before
    for epoch, loss in enumerate(losses, start=before + 1):
        if progress:
            progress(epoch, loss)
    return epoch
