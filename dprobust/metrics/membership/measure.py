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
from dprobust.training import Mislabelled, hold_out, mislabel

GRID = np.logspace(-4, 0, 41)
"""False positive rates of the ceilings."""


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """How well the loss tells training images from as many test images.

    Members are drawn from what was trained on, the same in every run of a dataset; of given weights, from all training
    images in use. Others are the first test images of the study's draw. Of a training with mislabelled examples those
    that were trained on are told from those left out, by the loss of their wrong class, as a comparison of its own
    (game "mislabelled", n: examples of a kind).

    Rows, with the ends low and high of an interval at 95 %: auc (DeLong); tpr at each fpr (bootstrap over the images);
    mean_loss of game "member" and "other" ("mislabelled member", "mislabelled other"). Where the training proves a
    ceiling, rows of ceiling: value is the highest true positive rate at fpr that any attack can have in the game
    "added" or "replaced" (`dprobust.membership.ceilings`). n: images of a kind.

    Arrays, N images of a kind:
        member_loss: float64 [N], cross-entropy of the members, whose places among the training images in use are
            `member`, int64 [N], ascending.
        loss: float64 [n], cross-entropy of all test images measured, those of `index`.
        other: bool [n], which of them are the others.
        mislabelled_member_loss, mislabelled_other_loss: float64 [k], of mislabelled examples trained on and left out.
    """
    check_images(model, images.x, images.y)
    data = images.train()
    members, places, canaries = _members(images, data)
    n = min(len(members), len(images.x))
    chosen = np.sort(draw(len(members), n, f"{images.about.get('dataset', '')}/members"))
    part = members.take(chosen)
    inside = _losses(model, unit(torch.from_numpy(part.images)), torch.from_numpy(part.labels))
    every = _losses(model, images.x, images.y)
    other = torch.zeros(len(every), dtype=torch.bool)
    other[images.first(n)] = True
    outside = every[other]
    measured = Measured()

    def add(metric: str, value: float, fpr: float | None = None, game: str = "", ends: tuple = (None, None)) -> None:
        row = {"metric": metric, "game": game, "fpr": fpr, "low": ends[0], "high": ends[1], "n": n, "value": value}
        measured.rows.append(row)

    def compare(inside: Tensor, outside: Tensor, game: str = "") -> None:
        scores = -inside.numpy(), -outside.numpy()
        add("mean_loss", inside.mean().item(), game=f"{game} member".lstrip())
        add("mean_loss", outside.mean().item(), game=f"{game} other".lstrip())
        area = auc(*scores)
        add("auc", area.value, game=game, ends=area[1:])
        for fpr, found in zip(settings.fpr, true_positives_interval(*scores, settings.fpr), strict=True):
            add("tpr", found.value, fpr, game, ends=found[1:])

    compare(inside, outside)
    if images.trained:
        grid = np.unique(np.concatenate([GRID, settings.fpr]))
        for game, ceiling in ceilings(images.trained["mechanism"], grid).items():
            for fpr, value in zip(grid.tolist(), ceiling.tolist(), strict=True):
                add("ceiling", value, fpr, game)
    if canaries:
        n = len(canaries.included)
        kinds = {"member": canaries.included, "other": canaries.left_out}
        of = {
            kind: _losses(model, unit(torch.from_numpy(data.images[at])), torch.from_numpy(canaries.labels[at]))
            for kind, at in kinds.items()
        }
        compare(of["member"], of["other"], "mislabelled")
        for kind, loss in of.items():
            measured.keep(f"mislabelled_{kind}_loss", loss)
    measured.keep("member_loss", inside)
    measured.keep("member", torch.from_numpy(places[chosen]))
    measured.keep("loss", every)
    measured.keep("other", other)
    return measured


def _members(images: Images, data: Split) -> tuple[Split, np.ndarray, Mislabelled | None]:
    """What the model was trained on under its right class, where that stands among the training images in use, and the
    mislabelled examples, if there are any."""
    places = np.arange(len(data))
    if not images.trained:
        return data, places, None
    training, stream = Training(**images.trained["settings"]["training"]), tuple(images.trained["stream"])
    used = Split(places, data.labels, data.classes or int(data.labels.max()) + 1)
    canaries = mislabel(used, training, stream) if training.mislabelled else None
    used = canaries.data if canaries else used
    if training.stop:
        used, _ = hold_out(used, training, stream)
    own = np.setdiff1d(used.images, canaries.included) if canaries else used.images
    return data.take(own), own, canaries


def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in float64 of the model's logits, float64 [N]."""
    (logits,) = map_batches(model, lambda batch: (model(batch),), 256, x)
    return LOSSES["ce_stable"](logits.double(), y)
