"""Curvature around single test images: eigenvalues of the input Hessian, finite differences."""

from torch import Tensor, nn

from dprobust.curvature import curvature_profile, finite_difference_curvature
from dprobust.errors import UserError
from dprobust.measuring import Images, Measured
from dprobust.metrics.curvature.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Curvature of the cross-entropy in float64, for any network that can be had in float64.

    Rows, one an image (`index`, its place in the test set) and value: eigenvalue, by its `rank` from 1;
    confidence_free, the largest one divided by p1 p2; finite_difference, for each `h`.

    Arrays, k eigenvalues, N images, all float64 but for the last:
        eigenvalues: [k, N], descending; h: [H], and finite_difference: [H, N].
        confidence_free: [N].
        p1, p2: [N], the two largest class probabilities.
        correct: bool [N], the most probable class is the right one.
    """
    pixels = images.x[0].numel()
    if settings.eigenvalues > pixels:
        raise UserError(
            f"metrics.curvature.eigenvalues: {settings.eigenvalues} asked for, an image has {pixels} values; "
            "set it to no more"
        )
    measured, n = Measured(), len(images.x)

    def add(metric: str, value: Tensor, rank: int | None = None, h: float | None = None) -> None:
        measured.add_each(index=images.index, metric=[metric] * n, rank=[rank] * n, h=[h] * n, value=value)

    profile = curvature_profile(model, images.x, images.y, settings.eigenvalues)
    for rank, value in enumerate(profile.eigenvalues.unbind(1), 1):
        add("eigenvalue", value, rank=rank)
    add("confidence_free", profile.confidence_free)
    differences = finite_difference_curvature(model, images.x, images.y, settings.h)
    for h, value in zip(settings.h, differences.unbind(1), strict=True):
        add("finite_difference", value, h=h)
    measured.keep("h", settings.h)
    measured.keep("eigenvalues", profile.eigenvalues.T.contiguous())
    measured.keep("finite_difference", differences.T.contiguous())
    for name in ("confidence_free", "p1", "p2", "correct"):
        measured.keep(name, getattr(profile, name))
    return measured
