"""Findings of the check of an attack."""

from functools import partial

import torch
from torch import nn

from dprobust.attacks import check, fgsm, standard_pgd
from dprobust.measuring import Images, Measured
from dprobust.metrics.attack_check.settings import Metric
from dprobust.seeds import derive

ATTACKS = {"fgsm": fgsm, "pgd": standard_pgd}


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """The findings for each eps; random draws are from a stream named by dataset, run, seed and eps.

    Rows: metric "finding", eps, check, threshold, flagged, n (images tried) and value, which passes up to the
    threshold; empty where there was nothing to test. `dprobust.attacks.checks` says what each is.

    Arrays, E eps, F findings:
        check: str [F], eps: float64 [E]: names of the axes.
        finding: float64 [E, F], the values. flagged: bool [E, F]. Neither has an axis of images.
    """
    measured, values, flags = Measured(), [], []
    attack = partial(ATTACKS[settings.attack], loss=settings.loss)
    for eps in settings.eps:
        seed = derive(*(images.about[name] for name in ("dataset", "run", "seed")), "attack_check", eps)
        found = check(
            model,
            images.x,
            images.y,
            eps,
            attack,
            others=list(images.others.values()),
            loss=settings.loss,
            queries=settings.square_queries,
            planted=settings.planted,
            seed=seed,
        )
        measured.add_each(
            metric=["finding"] * len(found),
            eps=[eps] * len(found),
            check=[finding.name for finding in found],
            threshold=[finding.threshold for finding in found],
            flagged=[finding.flagged for finding in found],
            n=[len(images.x)] * len(found),
            value=[finding.value for finding in found],
        )
        values.append([finding.value for finding in found])
        flags.append([finding.flagged for finding in found])
    measured.keep("check", [finding.name for finding in found])
    measured.keep("eps", settings.eps)
    measured.keep("finding", torch.tensor(values, dtype=torch.float64))
    measured.keep("flagged", torch.tensor(flags))
    return measured
