"""Curvature around test images drawn at random: eigenvalues of the input Hessian, finite differences."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    import torch

    from dprobust import curvature, seeds

    # Named by the dataset alone: every model is measured on the same images.
    draw = seeds.generator(snakemake.wildcards.dataset, "curvature")
    index = torch.randperm(len(e.x), generator=draw)[: e.settings["images"]].sort().values
    x, y, n = e.x[index], e.y[index], len(index)

    def add(metric: str, value: torch.Tensor, rank: int | None = None, h: float | None = None) -> None:
        e.add_each(index=index, metric=[metric] * n, rank=[rank] * n, h=[h] * n, value=value)

    profile = curvature.curvature_profile(e.model, x, y, e.settings["eigenvalues"])
    for rank, value in enumerate(profile.eigenvalues.unbind(1), 1):
        add("eigenvalue", value, rank=rank)
    add("confidence_free", profile.confidence_free)
    differences = curvature.finite_difference_curvature(e.model, x, y, e.settings["h"])
    for h, value in zip(e.settings["h"], differences.unbind(1), strict=True):
        add("finite_difference", value, h=h)
