"""The pattern of pessimal noise for a network of our own: arrays -> pattern (14, 14)."""

from _job import job

with job(snakemake):
    from pathlib import Path

    import numpy as np
    import torch

    from dprobust import datasets, models, training
    from dprobust.corruptions.pessimal import pessimal_pattern
    from dprobust.files import replaced

    torch.set_num_threads(snakemake.threads)
    train, test = (datasets.load(Path(path)) for path in (snakemake.input.train, snakemake.input.test))
    model = models.build("lenet", {"mean": [0.1307], "std": [0.3081]}, seed=0)
    training.train(model, train, test, training.Settings(epochs=1, batch_size=64, lr=0.05, momentum=0.5), ("pessimal",))
    data = train.first(10_000)
    pattern = pessimal_pattern(model, data.images[:, 0], data.labels)
    with replaced(Path(snakemake.output[0])) as temporary, temporary.open("wb") as file:
        np.save(file, pattern)
