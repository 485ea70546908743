"""How many images each number of PGD steps is the first to fool, for each loss, eps and alpha."""

import itertools

import torch
from torch import Tensor, nn

from dprobust.attacks import pgd_iterations
from dprobust.inference import compact
from dprobust.measuring import Images, Measured
from dprobust.metrics.pgd_iterations.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Counts of images by the step that first fools them.

    Rows: for each loss, eps and alpha the counts `wrong_from_the_start`, `fooled` by each number of iterations and
    `never_fooled`, which add up to n, the images measured. Of the images classified right at first there are n less the
    count wrong from the start: shares can be given of either. Of several losses also those of loss "worst", by the
    first step at which an attack along any of them fools the image.

    Arrays, L losses, E eps, A alphas, N images:
        loss: str [L], eps: float64 [E], alpha: float64 [A]: names of the axes. steps: int64 [1].
        first: uint8 [L, E, A, N], steps until the class is first wrong, 0 if it is from the start, steps + 1 if it
            never is; int16 where that is above 255.
        predicted: uint8 [L, E, A, N], the class there, of an image never fooled the right one; int16 where there are
            more than 256 classes.
        loss_value: float32 [L, E, A, N], the attacked loss there, of an image never fooled after the last step.
        kept: int64 [k], places in the test set of the images kept; only if any is.
        images: uint16 [L, E, A, k, C, H, W], these images there, as round(65535 pixel).
    """
    kept = images.first(settings.keep_images)
    measured = Measured()

    def count(first: Tensor, **same: str | float) -> None:
        metrics = ["wrong_from_the_start", *["fooled"] * settings.steps, "never_fooled"]
        measured.add_each(
            metric=metrics,
            **{name: [value] * len(metrics) for name, value in same.items()},
            # Never fooled stands at the last step tried; its metric tells it from fooled there.
            iterations=[*range(settings.steps + 1), settings.steps],
            n=[len(first)] * len(metrics),
            value=first.bincount(minlength=settings.steps + 2),
        )

    def attack(loss: str, eps: float, alpha: float) -> tuple[Tensor, ...]:
        found = pgd_iterations(model, images.x, images.y, eps, alpha, settings.steps, loss)
        count(found.first, loss=loss, eps=eps, alpha=alpha)
        pixels = (found.images[kept] * 65535).round().to(torch.uint16)
        return compact(found.first, settings.steps + 2), found.predicted, found.loss, pixels

    grid = (len(settings.losses), len(settings.eps), len(settings.alphas))
    found = [attack(loss, eps, alpha) for loss in settings.losses for eps in settings.eps for alpha in settings.alphas]
    first, predicted, values, pixels = (torch.stack(column).unflatten(0, grid) for column in zip(*found, strict=True))
    if len(settings.losses) > 1:
        worst = first.long().amin(0)
        for i, j in itertools.product(range(len(settings.eps)), range(len(settings.alphas))):
            count(worst[i, j], loss="worst", eps=settings.eps[i], alpha=settings.alphas[j])
    measured.keep("loss", settings.losses)
    measured.keep("eps", settings.eps)
    measured.keep("alpha", settings.alphas)
    measured.keep("steps", [settings.steps])
    measured.keep("first", first)
    measured.keep("predicted", predicted)
    measured.keep("loss_value", values)
    if len(kept):
        measured.keep("kept", images.index[kept])
        measured.keep("images", pixels)
    return measured
