"""Curvature profiles against the Hessian that automatic differentiation gives, on one CPU thread."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.data import test_images, trained_lenet
from benchmarks.harness import Spread, Table, Target, check, interleave, rows, timed
from dprobust.attacks import LOSSES
from dprobust.curvature import curvature_profile

EIGENVALUES, IMAGES = 15, 100
OURS, NAIVE = "ours", "torch.func.hessian and eigvalsh"


def tables(quick: bool) -> Iterator[Table]:
    torch.set_num_threads(1)
    model = trained_lenet(1000 if quick else 20_000)
    yield profiles(model, *test_images(IMAGES), naive=1 if quick else 2, rounds=1 if quick else 5)


def profiles(model: nn.Module, x: Tensor, y: Tensor, naive: int, rounds: int) -> Table:
    """Profiles of all images by ours; of the first `naive` by the full Hessian, and its time extrapolated."""
    twin = copy.deepcopy(model).double()

    def hessians() -> Tensor:
        def loss(image: Tensor, label: Tensor) -> Tensor:
            return LOSSES["ce_stable"](twin(image[None]), label[None])[0]

        hessian = torch.func.hessian(loss)
        size = x[0].numel()
        found = [hessian(x[i].double(), y[i]).view(size, size) for i in range(naive)]
        return torch.linalg.eigvalsh(torch.stack(found)).flip(1)[:, :EIGENVALUES]

    ours = curvature_profile(model, x[:naive], y[:naive], EIGENVALUES).eigenvalues
    expected = hessians()
    check("the curvature profile", ((ours - expected).norm(dim=1) / expected.norm(dim=1)).tolist(), 1e-6)
    slow = timed(hessians)
    contestants = {
        OURS: timed(lambda: curvature_profile(model, x, y, EIGENVALUES)),
        NAIVE: lambda: slow() * len(x) / naive,
    }
    samples = interleave(contestants, rounds, warm_up=0)
    target = Target(f"{len(x)} curvature profiles", Spread.of(samples[OURS]), 3, unit="s")
    note = f"The full Hessian was measured on {naive} images and extrapolated."
    return Table(
        f"{len(x)} curvature profiles, {EIGENVALUES} eigenvalues each, float64", "s", rows(samples, 1, NAIVE), NAIVE,
        [target], [note],
    )  # fmt: skip
