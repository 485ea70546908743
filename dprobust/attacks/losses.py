"""What attacks maximise: losses that grow as a classifier nears a mistake.

`LOSSES` are of the true class alone:

* `ce`: the cross-entropy as PyTorch computes it in the images' precision, which is the paper's. Once float32
  softmax rounds the true class to 1, its gradient lacks the true-class term and FGSM overstates robustness;
* `ce_stable`: the same loss written so that this term stays, log(1 + exp(log-odds against the true class));
* `margin`: the largest other logit minus the true one. Its gradient does not fade with confidence.

An `Objective` may also aim at a class: `margin_to`, and `dlr_to`, the same divided by a spread of the logits.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor


def log_odds_against(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 - p_y) / p_y) of the softmax probabilities (N,), without forming 1 - p_y, which rounds to 0."""
    return torch.logsumexp(without_true(logits, y), 1) - true_logit(logits, y)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _stable_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -F.logsigmoid(-log_odds_against(logits, y))


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    return without_true(logits, y).max(1).values - true_logit(logits, y)


def true_logit(logits: Tensor, y: Tensor) -> Tensor:
    """Logit (N,) of the true class."""
    return logits.gather(1, y[:, None]).squeeze(1)


def without_true(logits: Tensor, y: Tensor) -> Tensor:
    """The logits (N, K), the true class's as minus infinity."""
    return logits.scatter(1, y[:, None], -torch.inf)


Loss = Callable[[Tensor, Tensor], Tensor]
"""Per-example loss (N,) of logits (N, K) and labels (N,)."""

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"ce": _cross_entropy, "ce_stable": _stable_cross_entropy, "margin": _margin}
)

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Per-example loss (N,) of logits (N, K), labels (N,) and the classes aimed at (N,), which it may leave unused."""

OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "ce": lambda logits, y, _: _cross_entropy(logits, y),
        "ce_stable": lambda logits, y, _: _stable_cross_entropy(logits, y),
        "margin": lambda logits, y, _: _margin(logits, y),
    }
)
"""`LOSSES` as objectives."""

DLR_CLASSES = 4
"""Classes that `dlr_to` needs."""


def margin_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Logit of the class aimed at minus the true one's."""
    return true_logit(logits, target) - true_logit(logits, y)


def dlr_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """`margin_to` divided by how far the largest logit lies above the mean of the third and the fourth: the targeted
    difference-of-logits ratio (Croce and Hein 2020, arXiv 2003.01690, eq. 7), which no scale of the logits changes.
    Needs four classes."""
    largest = logits.topk(DLR_CLASSES, 1).values
    spread = largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3])
    return margin_to(logits, y, target) / (spread + 1e-12)
