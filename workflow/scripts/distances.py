"""Distance of each image to the decision boundary: Eq. 4 in both norms, DeepFool on the first images."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    import torch

    from dprobust import distances

    measured = distances.boundary_distances(e.model, e.x, e.y)._asdict()
    first = e.settings["deepfool_images"] if e.settings["deepfool"] else 0
    x, y = e.x[:first], e.y[:first]
    for norm in distances.ORDER:
        column = measured[f"deepfool_{norm}"] = torch.full((len(e.x),), torch.nan)
        if len(x):
            column[: len(x)] = distances.deepfool(e.model, x, y, norm).distance
    e.add_each(index=torch.arange(len(e.x)), **measured)
