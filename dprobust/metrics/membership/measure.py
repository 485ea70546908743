"""Membership inference by the loss."""

import numpy as np
import torch
from torch import Tensor, nn

from dprobust.arrays import Split, draw
from dprobust.attacks import LOSSES
from dprobust.inference import check_images, map_batches
from dprobust.measuring import Images, Measured
from dprobust.membership import auc, ceilings, true_positives_interval
from dprobust.metrics.membership.settings import Metric
from dprobust.models.networks import unit
from dprobust.recipe import Training
from dprobust.training import hold_out

GRID = np.logspace(-4, 0, 41)
"""False positive rates of the ceilings."""


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """How well the loss tells training images from as many test images.

    Members are drawn from what was trained on, the same in every run of a dataset; of given weights, from all training
    images in use. Others are the first test images of the study's draw.

    Rows, with the ends low and high of an interval at 95 %: auc (DeLong); tpr at each fpr (bootstrap over the images);
    mean_loss of game "member" and "other". Where the training proves a ceiling, rows of ceiling: value is the highest
    true positive rate at fpr that any attack can have in the game "added" or "replaced"
    (`dprobust.membership.ceilings`). n: images of a kind.

    Arrays, N images of a kind:
        member_loss: float64 [N], cross-entropy of the members, whose places among the training images in use are
            `member`, int64 [N], ascending.
        loss: float64 [n], cross-entropy of all test images measured, those of `index`.
        other: bool [n], which of them are the others.
    """
    check_images(model, images.x, images.y)
    members, places = _members(images)
    n = min(len(members), len(images.x))
    chosen = np.sort(draw(len(members), n, f"{images.about.get('dataset', '')}/members"))
    part = members.take(chosen)
    inside = _losses(model, unit(torch.from_numpy(part.images)), torch.from_numpy(part.labels))
    every = _losses(model, images.x, images.y)
    other = torch.zeros(len(every), dtype=torch.bool)
    other[images.first(n)] = True
    outside = every[other]
    measured = Measured()
    scores = -inside.numpy(), -outside.numpy()

    def add(metric: str, value: float, fpr: float | None = None, game: str = "", ends: tuple = (None, None)) -> None:
        row = {"metric": metric, "game": game, "fpr": fpr, "low": ends[0], "high": ends[1], "n": n, "value": value}
        measured.rows.append(row)

    add("mean_loss", inside.mean().item(), game="member")
    add("mean_loss", outside.mean().item(), game="other")
    area = auc(*scores)
    add("auc", area.value, ends=area[1:])
    for fpr, found in zip(settings.fpr, true_positives_interval(*scores, settings.fpr), strict=True):
        add("tpr", found.value, fpr, ends=found[1:])
    if images.trained:
        grid = np.unique(np.concatenate([GRID, settings.fpr]))
        for game, ceiling in ceilings(images.trained["mechanism"], grid).items():
            for fpr, value in zip(grid.tolist(), ceiling.tolist(), strict=True):
                add("ceiling", value, fpr, game)
    measured.keep("member_loss", inside)
    measured.keep("member", torch.from_numpy(places[chosen]))
    measured.keep("loss", every)
    measured.keep("other", other)
    return measured


def _members(images: Images) -> tuple[Split, np.ndarray]:
    """What the model was trained on, and where that stands among the training images in use."""
    data = images.train()
    places = np.arange(len(data))
    training = Training(**images.trained["settings"]["training"]) if images.trained else None
    if training is None or training.stop is None:
        return data, places
    stream = tuple(images.trained[name] for name in ("seed", "dataset", "run"))
    numbered = Split(places, data.labels, data.classes)
    kept, _ = hold_out(numbered, training, stream)
    return data.take(kept.images), kept.images


def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in float64 of the model's logits, float64 [N]."""
    (logits,) = map_batches(model, lambda batch: (model(batch),), 256, x)
    return LOSSES["ce_stable"](logits.double(), y)
