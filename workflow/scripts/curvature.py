"""Curvature around test images drawn at random: eigenvalues of the input Hessian, finite differences."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    import torch

    from dprobust import curvature, seeds

    # Named by the dataset only: every model is measured on the same images.
    draw = seeds.generator(snakemake.wildcards.dataset, "curvature")
    index = torch.randperm(len(e.x), generator=draw)[: e.settings["images"]].sort().values
    x, y = e.x[index], e.y[index]
    profile = curvature.curvature_profile(e.model, x, y, e.settings["eigenvalues"])
    for rank, value in enumerate(profile.eigenvalues.unbind(1), 1):
        e.add_each(index=index, metric=["eigenvalue"] * len(x), rank=[rank] * len(x), value=value)
    e.add_each(index=index, metric=["confidence_free"] * len(x), value=profile.confidence_free)
    differences = curvature.finite_difference_curvature(e.model, x, y, e.settings["h"])
    for h, value in zip(e.settings["h"], differences.unbind(1), strict=True):
        e.add_each(index=index, metric=["finite_difference"] * len(x), h=[h] * len(x), value=value)
