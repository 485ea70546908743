"""The matrix of pessimal noise: among all noise of one size, the distribution that hurts a classifier most.

The release of MNIST-C has a matrix that was made for one network. This module repeats its optimisation for
any network; it is the only part of the corruptions that needs PyTorch.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dprobust.corruptions.common import check_images
from dprobust.corruptions.noise import PESSIMAL_NORM
from dprobust.inference import at_rest, check_count

Schedule = Sequence[tuple[int, float]]
"""(epochs, learning rate), one after the other."""

OFFICIAL_SCHEDULE: Schedule = ((45, 1000.0), (45, 100.0), (45, 1.0))
"""The schedule of the release, for the 60,000 training images."""

SHORT_SCHEDULE: Schedule = ((10, 3000.0), (5, 300.0))
"""For 10,000 training images in batches of 50: about a minute on one core instead of the official schedule's hour.

It comes near the official one, not up to it: on one LeNet (800-500-10, one seed) accuracy falls to 88 %; 45 epochs on
all 60,000 images (15 at each of the official rates) bring it to 85 %."""


def pessimal_matrix(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    schedule: Schedule = OFFICIAL_SCHEDULE,
    batch_size: int = 100,
    progress: Callable[[int, float], object] | None = None,
) -> np.ndarray:
    """Find W such that noise z W, z ~ N(0, I), scaled to `PESSIMAL_NORM`, maximises the loss of a classifier.

    As in the release: stochastic gradient ascent, from the identity, on the mean cross-entropy of the images
    plus noise, a 14x14 tile repeated 2x2, clamped to [0, 1]. W tends to rank one: a pattern with random sign.

    Args:
        model: trained classifier that maps float32 (N, 1, 28, 28) in [0, 1] to logits; used in evaluation
            mode and left as it was.
        images: uint8 (N, 28, 28), clean training images.
        labels: integers (N,), their classes.
        seed: of the order of the images and of the noise. On a CPU equal arguments give equal bytes.
        schedule: epochs and learning rates.
        batch_size: images a step.
        progress: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        W, float32 (196, 196): ``corrupt(images, "pessimal_noise", seed, pattern=W)``.

    Raises:
        ValueError: images, labels, schedule or batch size malformed.
    """
    check_images(images)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0:
        raise ValueError(f"labels must be {len(images)} > 0 integers, found {labels.dtype} {labels.shape}")
    check_count("batch_size", batch_size)
    rates = [lr for epochs, lr in schedule for _ in range(epochs)]
    random = torch.Generator().manual_seed(seed)
    device = next(model.parameters(), torch.empty(0)).device
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device, torch.int64)
    matrix = torch.eye(196, device=device, requires_grad=True)
    with at_rest(model):
        for epoch, lr in enumerate(rates, start=1):
            total = torch.zeros((), device=device)
            for batch in torch.randperm(len(x), generator=random).split(batch_size):
                z = torch.randn(len(batch), 196, generator=random).to(device)
                batch = batch.to(device)
                noise = (PESSIMAL_NORM * F.normalize(z @ matrix)).view(-1, 1, 14, 14).repeat(1, 1, 2, 2)
                loss = F.cross_entropy(model((x[batch, None] / 255 + noise).clamp(0, 1)), y[batch])
                (gradient,) = torch.autograd.grad(loss, matrix)
                matrix.detach().add_(gradient, alpha=lr)
                total += loss.detach() * len(batch)
            if progress:
                progress(epoch, total.item() / len(x))
    return matrix.detach().cpu().numpy()
