"""FGSM accuracy of one model over the eps grid, for each attack loss: model -> record."""

from _job import device, job

with job(snakemake):
    from pathlib import Path

    import torch

    from dprobust import attacks, datasets, models, records, training

    p, source, w = snakemake.params, snakemake.input, snakemake.wildcards
    place = device(p.device)
    model = models.load(Path(source.model), p.model, place).to(memory_format=torch.channels_last)
    data = datasets.load(Path(source.test)).first(p.test_size)
    x, y = training.unit(torch.from_numpy(data.images)), torch.from_numpy(data.labels)

    rows = []
    for loss in p.fgsm["losses"]:
        curve = attacks.fgsm_curve(model, x, y, p.fgsm["eps"], loss)
        about = {"dataset": w.dataset, "run": w.run, "seed": w.seed}
        n = len(data)
        rows += [
            about | {"metric": "accuracy", "loss": loss, "eps": eps, "n": n, "value": value}
            for eps, value in zip(p.fgsm["eps"], curve.correct.double().mean(0).tolist(), strict=True)
        ]
        rows += [
            about | {"metric": metric, "loss": loss, "eps": 0.0, "n": n, "value": share.double().mean().item()}
            for metric, share in (("p_true_is_1", curve.saturated), ("zero_gradient", curve.zero_gradient))
        ]
    records.write(Path(snakemake.output.record), rows)
    records.write_provenance(
        Path(snakemake.output.provenance),
        {"fgsm": p.fgsm, "model": p.model, "test_size": p.test_size},
        map(Path, source),
        device=str(place),
        code=p.code,
    )
