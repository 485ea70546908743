"""What the pre-trained convolutions make of a dataset: images -> features, with the labels."""

from _job import device, job

with job(snakemake):
    from pathlib import Path

    import torch

    from dprobust import datasets, models

    p = snakemake.params
    model = models.build(**p.model)
    models.load_features(model, Path(snakemake.input.features))
    data = datasets.load(Path(snakemake.input.images)).first(p.size)
    images = torch.from_numpy(data.images)
    images = images.flip(-1) if snakemake.wildcards.view == "mirrored" else images
    features = models.compute_features(models.split(model)[0].to(device(p.device)), images)
    datasets.save(Path(snakemake.output[0]), features.numpy(), data.labels)
