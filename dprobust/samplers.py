"""How the examples of a batch are drawn. What each sampler costs in privacy is in `dprobust.privacy`."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dprobust.recipe import Training


def batches(n: int, settings: Training, random: torch.Generator) -> Iterator[Tensor]:
    """The batches of an epoch over `n` examples, as indices (int64); there are `settings.steps_per_epoch(n)`.

    Batches of poisson, truncated_poisson and balls_in_bins differ in size and may be empty; their indices ascend, but
    where a cap was reached.

    Args:
        n: number of examples, at least the batch size.
        settings: `sampling`, `batch_size` b, and of truncated_poisson `batch_cap`.
        random: generator on the CPU; nothing else decides what is drawn.
    """
    return SAMPLERS[settings.sampling](n, settings, random)


def _poisson(n: int, settings: Training, random: torch.Generator) -> Iterator[Tensor]:
    """Each example with probability b / n, independently of all else."""
    for _ in range(settings.steps_per_epoch(n)):
        # float64: in float32 the rate would be rounded to a multiple of 2^-24.
        drawn = torch.rand(n, generator=random, dtype=torch.float64) < settings.batch_size / n
        yield drawn.nonzero().squeeze(1)


def _truncated_poisson(n: int, settings: Training, random: torch.Generator) -> Iterator[Tensor]:
    """As Poisson, but of more than `cap` examples a random `cap` are kept: one shape holds every batch."""
    for batch in _poisson(n, settings, random):
        if len(batch) > settings.cap:
            batch = batch[torch.randperm(len(batch), generator=random)[: settings.cap]]
        yield batch


def _balls_in_bins(n: int, settings: Training, random: torch.Generator) -> Iterator[Tensor]:
    """Each example in one batch of the epoch, drawn uniformly and independently of the others (Chua et al. 2024)."""
    steps = settings.steps_per_epoch(n)
    bins = torch.randint(steps, (n,), generator=random)
    yield from bins.argsort(stable=True).split(bins.bincount(minlength=steps).tolist())


def _shuffle(n: int, settings: Training, random: torch.Generator) -> Iterator[Tensor]:
    """A new order each epoch, cut into batches of exactly b; the incomplete last one is left out."""
    steps, b = settings.steps_per_epoch(n), settings.batch_size
    yield from torch.randperm(n, generator=random)[: steps * b].view(steps, b)


SAMPLERS: dict[str, Callable[[int, Training, torch.Generator], Iterator[Tensor]]] = {
    "poisson": _poisson,
    "truncated_poisson": _truncated_poisson,
    "balls_in_bins": _balls_in_bins,
    "shuffle": _shuffle,
}
