"""Accuracy on each of the 31 corrupted test sets of MNIST-C, and on the clean one."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    import json
    from pathlib import Path

    import numpy as np
    import torch

    from dprobust import models
    from dprobust.corruptions import NAMES
    from dprobust.inference import predict

    path = Path(snakemake.input.extra)
    origins = json.loads(path.with_suffix(".json").read_text()) | {"identity": "mnist"}
    with np.load(path, allow_pickle=False) as sets:
        for name in ("identity", *NAMES):
            x = e.x if name == "identity" else models.unit(torch.from_numpy(sets[name][: len(e.x), None]))
            e.add("accuracy", predict(e.model, x) == e.y, corruption=name, source=origins[name])
