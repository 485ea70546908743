"""Attacks on classifiers: images changed within a ball so that their class is wrong.

* Gradient sign, as in the paper: `fgsm`, `fgsm_curve`, `pgd`, `pgd_record`, `pgd_iterations`, along `LOSSES`;
* stronger ones, in the linf and the l2 ball: `apgd`, `apgd_targeted`, `square`;
* all of them from weak to strong, each on the images that the others have left: `ladder`, `robust_accuracy`;
* whether what an attack leaves, of any library, is robustness: `check`.
"""

from dprobust.attacks.autopgd import apgd, apgd_targeted
from dprobust.attacks.checks import Attack, Finding, check, standard_pgd
from dprobust.attacks.gradient_sign import (
    FgsmCurve,
    PgdIterations,
    PgdRecord,
    fgsm,
    fgsm_curve,
    first_adversarial_step,
    pgd,
    pgd_iterations,
    pgd_record,
)
from dprobust.attacks.losses import LOSSES, Loss, log_odds_against
from dprobust.attacks.rungs import BUDGETS, RUNGS, Budget, Ladder, ladder, robust_accuracy
from dprobust.attacks.search import Found
from dprobust.attacks.squares import square

__all__ = [
    "BUDGETS",
    "LOSSES",
    "RUNGS",
    "Attack",
    "Budget",
    "FgsmCurve",
    "Finding",
    "Found",
    "Ladder",
    "Loss",
    "PgdIterations",
    "PgdRecord",
    "apgd",
    "apgd_targeted",
    "check",
    "fgsm",
    "fgsm_curve",
    "first_adversarial_step",
    "ladder",
    "log_odds_against",
    "pgd",
    "pgd_iterations",
    "pgd_record",
    "robust_accuracy",
    "square",
    "standard_pgd",
]
