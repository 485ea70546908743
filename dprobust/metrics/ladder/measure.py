"""Accuracy after each attack of the ladder, and which attack is the first to break each image."""

import torch
from torch import Tensor, nn

from dprobust.attacks import Budget, ladder
from dprobust.measuring import Images, Measured
from dprobust.metrics.ladder.settings import Metric
from dprobust.seeds import derive


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """The ladder for each eps.

    Rows: accuracy for each eps and rung, of the images that neither this rung nor one before it breaks; rung "clean" is
    without attack. `alone` for each eps and rung: of the images of `alone_index` that the ladder breaks, the share that
    this rung breaks by itself (n: how many these are); no row where there is none. Random starts and Square Attack draw
    from a stream named by dataset, run, seed, norm and eps.

    Arrays, E eps, R rungs with "clean", N images:
        rung: str [R], eps: float64 [E]: names of the axes. norm: str [1].
        broken_by: int8 [E, N], place in `rung` of the one that breaks the image, 0 if it is wrong as it is, -1 if none
            does. Every break is a forward pass on an image in the ball and in [0, 1].
        alone_index: int64 [n], places in the test set of the images that each rung is tried on by itself; only if any
            are.
        alone: bool [E, R, n], it breaks them; of "clean" whether they are wrong as they are.
    """
    budget = Budget(**dict(settings.budget))
    few = images.first(settings.alone_images)
    measured, broken_by, alone = Measured(), [], []
    for eps in settings.eps:
        seed = derive(*(images.about[name] for name in ("dataset", "run", "seed")), "ladder", settings.norm, eps)
        found = ladder(model, images.x, images.y, eps, settings.norm, settings.rungs, budget, seed)
        same = {"norm": settings.norm, "eps": eps}
        for place, rung in enumerate(found.rungs):
            right = (found.broken_by < 0) | (found.broken_by > place)
            measured.add("accuracy", right, rung=rung, **same)
        broken_by.append(found.broken_by)
        if len(few):
            breaks = _alone(model, images.x[few], images.y[few], eps, settings, budget, seed)
            final = found.broken_by[few] > 0
            for rung, broken in zip(settings.rungs, breaks[1:], strict=True):
                if final.any():
                    measured.add("alone", broken[final], rung=rung, **same)
            alone.append(breaks)
    measured.keep("rung", found.rungs)
    measured.keep("eps", settings.eps)
    measured.keep("norm", [settings.norm])
    measured.keep("broken_by", torch.stack(broken_by))
    if len(few):
        measured.keep("alone_index", images.index[few])
        measured.keep("alone", torch.stack(alone))
    return measured


def _alone(model: nn.Module, x: Tensor, y: Tensor, eps: float, settings: Metric, budget: Budget, seed: int) -> Tensor:
    """bool (R, n): wrong as they are, and broken by each rung on its own."""
    found = [ladder(model, x, y, eps, settings.norm, [rung], budget, seed).broken_by for rung in settings.rungs]
    return torch.stack([found[0] == 0, *(broken == 1 for broken in found)])
