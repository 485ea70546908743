"""Curvature of the cross-entropy around an image: input Hessian eigenvalues (Fig 5c), finite differences.

A network of affine layers, ReLU and max or average pooling has logits that are piecewise linear in its input.
The input Hessian of the cross-entropy is then J^T (diag p - p p^T) J, with J the Jacobian of the logits and p
the class probabilities: positive semi-definite, of rank at most K - 1. Let r be the most probable class, C
the rows J_k - J_r and q_k = sqrt(p_k) of the others. The Hessian is B^T B, where

    B = (I - q q^T / (1 + sqrt(p_r))) diag(q) C,

and its non-zero eigenvalues are the squared singular values of B, in which nothing cancels as p_r goes to 1.

The largest eigenvalue is about p_1 p_2 ||grad(f_1 - f_2)||^2 (the two most probable classes): it falls with
confidence alone. Divided by p_1 p_2 it does not, and measures the gradient of the margin.

Everything is computed in float64, in a copy of the model.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.attacks import LOSSES, log_odds_against
from dprobust.errors import UserError
from dprobust.inference import (
    at_rest,
    check_choice,
    check_count,
    check_images,
    home,
    input_gradient,
    logit_differences,
    map_batches,
)

METHODS = ("auto", "gauss_newton", "full")
HESSIANS = 2**25
"""Entries of whole Hessians, float64, that are held at a time: 256 MiB."""


class CurvatureProfile(NamedTuple):
    """Spectrum of the input Hessian of the cross-entropy, per image, float64."""

    eigenvalues: Tensor
    """(N, k): the k largest, descending."""
    confidence_free: Tensor
    """(N,): the largest one divided by p_1 p_2."""
    p1: Tensor
    """(N,): the largest class probability."""
    p2: Tensor
    """(N,): the second largest."""
    correct: Tensor
    """bool (N,): p_1 is that of the label."""


def curvature_profile(
    model: nn.Module, x: Tensor, y: Tensor, k: int, method: str = "auto", batch_size: int = 16
) -> CurvatureProfile:
    """The k largest eigenvalues of the Hessian of the cross-entropy with respect to each image (Fig 5c).

    x: float (N, C, H, W) in [0, 1]; y: int64 (N,); 1 <= k <= C H W. The method is one of

    * "gauss_newton": J^T (diag p - p p^T) J, whose eigenvalues from the K-th on are exactly 0. It is the
      whole Hessian of a piecewise linear network, and only a part of any other;
    * "full": the whole Hessian of any twice differentiable network, by C H W second backward passes;
    * "auto": "gauss_newton" for a batch where the second derivatives of the logits are exactly 0, else
      "full". They are measured at the images: no layer is taken for piecewise linear by its name.

    Raises ValueError on arguments that do not fit.
    """
    check_images(model, x, y)
    check_choice("method", method, METHODS)
    check_count("k", k)
    if k > x[0].numel():
        raise ValueError(f"k must be at most the {x[0].numel()} input dimensions, found {k}")
    model = _in_float64(model, x)
    few = max(1, HESSIANS // x[0].numel() ** 2)

    def profile(x: Tensor, y: Tensor) -> CurvatureProfile:
        if method == "full" or (method == "auto" and _logits_curve(model, x)):
            parts = [_full_profile(model, *part, k) for part in zip(x.split(few), y.split(few), strict=True)]
            return CurvatureProfile(*(torch.cat(column) for column in zip(*parts, strict=True)))
        return _gauss_newton_profile(model, x, y, k)

    return CurvatureProfile(*map_batches(model, profile, batch_size, x.double(), y))


def input_hessian_eigenvalues(
    model: nn.Module, x: Tensor, y: Tensor, k: int, method: str = "auto", batch_size: int = 16
) -> Tensor:
    """The eigenvalues (N, k) of `curvature_profile`, float64, descending."""
    return curvature_profile(model, x, y, k, method, batch_size).eigenvalues


def finite_difference_curvature(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    h: Sequence[float] = (0.1, 0.5, 1.5, 3.0),
    batch_size: int = 64,
) -> Tensor:
    """Change of the cross-entropy gradient over a finite distance, ||grad L(x + h z) - grad L(x)||_2 / h.

    z is the unit vector sign(grad L(x)) / ||sign(grad L(x))||_2 of CURE (Moosavi-Dezfooli et al. 2019), whose
    regulariser is h times this value; h > 0 in l2 units. x + h z is not clipped to [0, 1]. Returns float64
    (N, len(h)). A gradient keeps its direction at any confidence, and its size until 1 - p_y is below 1e-308.
    Raises ValueError on arguments that do not fit.
    """
    check_images(model, x, y)
    if not all(math.isfinite(distance) and distance > 0 for distance in h) or len(h) == 0:
        raise ValueError(f"h must hold finite numbers > 0, found {list(h)}")
    model = _in_float64(model, x)

    def gradients(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # grad L is 1 - p_y times the gradient of the log-odds, whose sign is the same and does not underflow.
        direction, logits = input_gradient(model, log_odds_against, x, y)
        direction = direction.flatten(1)
        return direction, log_odds_against(logits, y).sigmoid()[:, None] * direction

    def curvature(x: Tensor, y: Tensor) -> tuple[Tensor]:
        direction, gradient = gradients(x, y)
        z = torch.nn.functional.normalize(direction.sign()).view_as(x)
        changes = [_norm(gradients(x + distance * z, y)[1] - gradient) / distance for distance in h]
        return (torch.stack(changes, 1),)

    return map_batches(model, curvature, batch_size, x.double(), y)[0]


def _norm(rows: Tensor) -> Tensor:
    """l2 norms of rows (N, D) whose squares may be too small or too large for the type."""
    largest = rows.abs().amax(1, keepdim=True)
    return torch.where(largest == 0, largest, largest * (rows / largest).norm(dim=1, keepdim=True)).squeeze(1)


def _in_float64(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy of a model in float64.

    Raises:
        UserError: it holds float32 constants, as frozen TorchScript does, and cannot be had in float64.
    """
    with torch.no_grad():  # the copy of TorchScript would else be a step in a graph
        model = copy.deepcopy(model).double()
    try:
        with at_rest(model), torch.no_grad():
            model(x[:1].double().to(home(model, x)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"curvature is computed in float64, which the network does not take ({reason})") from error
    return model


def _logits_curve(model: nn.Module, x: Tensor) -> bool:
    """Whether a random second derivative, of a random combination of the logits, is not exactly 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        weights = torch.randn(logits.shape, generator=generator, dtype=x.dtype).to(x.device)
        (gradient,) = torch.autograd.grad((weights * logits).sum(), x, create_graph=True)
        if not gradient.requires_grad:
            return False
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        (product,) = torch.autograd.grad((direction * gradient).sum(), x, allow_unused=True)
    return product is not None and not (product == 0).all()


def _gauss_newton_profile(model: nn.Module, x: Tensor, y: Tensor, k: int) -> CurvatureProfile:
    predicted = model(x).argmax(1)
    differences, gradients = logit_differences(model, x, predicted)
    log_p1 = -differences.exp().sum(1, keepdim=True).log1p()
    log_p = log_p1 + differences
    log_p2 = log_p.amax(1, keepdim=True)
    log_p1_p2 = log_p1 + log_p2
    c = gradients.flatten(2)
    mean = log_p.exp()[:, None] @ c / (1 + (log_p1 / 2).exp()[..., None])
    # B / sqrt(p_1 p_2): its entries neither underflow nor overflow however small p_2 is.
    b = ((log_p - log_p1_p2) / 2).exp()[..., None] * (c - mean)
    spectrum = torch.linalg.svdvals(b).square()
    eigenvalues = spectrum.new_zeros(len(x), k)
    nonzero = min(k, spectrum.shape[1])
    eigenvalues[:, :nonzero] = (spectrum * log_p1_p2.exp())[:, :nonzero]
    return CurvatureProfile(
        eigenvalues, spectrum[:, 0], log_p1.squeeze(1).exp(), log_p2.squeeze(1).exp(), predicted == y
    )


def _full_profile(model: nn.Module, x: Tensor, y: Tensor, k: int) -> CurvatureProfile:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        (gradient,) = torch.autograd.grad(LOSSES["ce_stable"](logits, y).sum(), x, create_graph=True)
        rows = [
            torch.autograd.grad(column.sum(), x, retain_graph=True)[0].flatten(1)
            for column in gradient.flatten(1).unbind(1)
        ]
    eigenvalues = torch.linalg.eigvalsh(torch.stack(rows, 1)).flip(1)[:, :k]
    logits = logits.detach()
    log_p = logits.log_softmax(1).topk(2).values
    return CurvatureProfile(
        eigenvalues, eigenvalues[:, 0] * (-log_p.sum(1)).exp(), *log_p.exp().unbind(1), logits.argmax(1) == y
    )
