"""Losses of examples, each by itself: what training minimises."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs (N, ...) of a model and targets (N, ...) -> losses (N,), each a function of its own row alone."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy (N,) of logits (N, classes) and classes int64 (N,)."""
    if logits.dim() != 2 or len(logits) != len(y):
        raise ValueError(f"the model must return logits of shape ({len(y)}, classes), got {tuple(logits.shape)}")
    return F.cross_entropy(logits, y, reduction="none")


def check_targets(loss: Loss, y: Tensor, n: int) -> None:
    """ValueError if targets do not fit n examples, or are no classes where classes are wanted."""
    if loss is not cross_entropy:
        if y.dim() == 0 or len(y) != n:
            raise ValueError(f"y must hold a target for each of {n} examples, got shape {tuple(y.shape)}")
    elif y.dtype != torch.int64 or tuple(y.shape) != (n,):
        raise ValueError(f"y must hold int64 classes of shape {(n,)}, got {y.dtype} of shape {tuple(y.shape)}")


def losses(loss: Loss, outputs: Tensor, y: Tensor) -> Tensor:
    """Losses (N,); ValueError if the loss gives anything else."""
    found = loss(outputs, y)
    if found.shape != y.shape[:1]:
        raise ValueError(
            f"the loss must return one value an example, shape {tuple(y.shape[:1])}, got {tuple(found.shape)}: "
            'of a loss of PyTorch, take reduction="none" and sum what belongs to an example'
        )
    return found
