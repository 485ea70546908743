"""PGD accuracy after some numbers of steps, all from one run for each loss and eps."""

import torch
from torch import Tensor, nn

from dprobust.attacks import PgdRecord, pgd_record
from dprobust.inference import classes, compact, map_batches
from dprobust.measuring import Images, Measured
from dprobust.metrics.pgd.settings import Metric
from dprobust.seeds import generator


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Accuracy for each loss, eps and number of steps; without attack at eps 0 and 0 steps.

    Of several losses also that of loss "worst": right only where every loss leaves the image right. Random starts come
    from a stream named by dataset, run, seed, loss and eps.

    Arrays, L losses, E eps, S numbers of steps, N images:
        loss: str [L], eps: float64 [E], steps: int64 [S]: names of the axes. alpha: float64 [1].
        first: uint8 [L, E, N], first step after which the class is wrong, 0 if it is at the start, the largest of the
            steps plus 1 if it never is; int16 where that is above 255. Of several restarts the earliest.
        predicted: uint8 [L, E, S, N], class after so many steps; int16 where there are more than 256 classes.
        loss_value: float32 [L, E, S, N], the attacked loss there. Of several restarts, class and value are of the worst
            for each image: one that has it wrong if any has, and among those the one of the highest loss.
        clean: [N], class of the image itself, in the type of `predicted`.
        kept: int64 [k], places in the test set of the images whose attack is kept; only if any is.
        images: uint16 [L, E, k, C, H, W], these images after the last step, as round(65535 pixel): off by at most
            7.7e-6, by which they may leave the ball.
    """
    clean = map_batches(model, lambda x: (classes(model(x)),), 256, images.x)[0]
    kept = images.first(settings.keep_images)
    start = {"random_start": settings.random_start, "restarts": settings.restarts}
    measured = Measured()

    def add(loss: str, unharmed: Tensor, attacked: Tensor) -> None:
        """Rows of what is right (N,), and right after the attacks (E, S, N)."""
        measured.add("accuracy", unharmed, loss=loss, eps=0.0, alpha=settings.alpha, steps=0, **start)
        for eps, columns in zip(settings.eps, attacked, strict=True):
            for steps, correct in zip(settings.steps, columns, strict=True):
                measured.add("accuracy", correct, loss=loss, eps=eps, alpha=settings.alpha, steps=steps, **start)

    records = []
    for loss in settings.losses:
        found = [_attack(model, images, settings, loss, eps, kept) for eps in settings.eps]
        records.append(PgdRecord(*(torch.stack(column) for column in zip(*found, strict=True))))
    predicted, values, first, adversarial = (torch.stack(column) for column in zip(*records, strict=True))
    right = predicted == images.y
    for loss, correct in zip(settings.losses, right, strict=True):
        add(loss, clean == images.y, correct)
    if len(right) > 1:
        add("worst", clean == images.y, right.all(0))
    measured.keep("loss", settings.losses)
    measured.keep("eps", settings.eps)
    measured.keep("steps", settings.steps)
    measured.keep("alpha", [settings.alpha])
    measured.keep("first", compact(first, max(settings.steps) + 2))
    measured.keep("predicted", predicted)
    measured.keep("loss_value", values)
    measured.keep("clean", clean)
    if len(kept):
        measured.keep("kept", images.index[kept])
        measured.keep("images", adversarial)
    return measured


def _attack(model: nn.Module, images: Images, settings: Metric, loss: str, eps: float, kept: Tensor) -> PgdRecord:
    """`pgd_record` with the images last, of the kept images only their pixels, as uint16."""
    about, start = images.about, None
    if settings.random_start:
        start = generator(about["dataset"], about["run"], about["seed"], "pgd", loss, eps)
    record = pgd_record(model, images.x, images.y, eps, settings.alpha, settings.steps, loss, settings.restarts, start)
    pixels = (record.images[kept] * 65535).round().to(torch.uint16)
    return PgdRecord(record.predicted.T, record.loss.T, record.first, pixels)
