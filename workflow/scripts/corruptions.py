"""Accuracy on each corrupted test set, and on the clean one."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    import json
    from pathlib import Path

    import numpy as np
    import torch

    from dprobust import models
    from dprobust.errors import UserError
    from dprobust.inference import predict

    path = Path(snakemake.input.extra)
    origins = path.with_suffix(".json")
    origins = json.loads(origins.read_text()) if origins.exists() else {}
    e.add("accuracy", predict(e.model, e.x) == e.y, corruption="identity", source=e.about["dataset"])
    with np.load(path, allow_pickle=False) as sets:
        for name in sets.files:
            images = sets[name][: len(e.x)]
            if images.dtype != np.uint8 or images.size != e.x.numel():
                found = f"{images.dtype} {images.shape}"
                raise UserError(f"{path}: {name} is {found}, expected uint8 like the test images {tuple(e.x.shape)}")
            x = models.unit(torch.from_numpy(images).view(e.x.shape))
            e.add("accuracy", predict(e.model, x) == e.y, corruption=name, source=origins.get(name, path.name))
