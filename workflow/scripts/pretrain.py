"""Pre-train the convolutions of a network on public images: arrays -> features.safetensors and pretrain.json."""

from _job import device, job

with job(snakemake):
    from pathlib import Path

    import torch

    from dprobust import datasets, models, records, seeds, training

    p, output = snakemake.params, Path(snakemake.output.features)
    stream = ("pretraining", snakemake.wildcards.dataset)
    data, test = (datasets.load(Path(path)) for path in (snakemake.input.train, snakemake.input.test))
    if p.train_size:
        drawn = torch.randperm(len(data), generator=seeds.generator(*stream, "examples")).numpy()
        data = datasets.Split(data.images[drawn], data.labels[drawn]).first(p.train_size)
    place = device(p.device)
    classes = datasets.SOURCES[p.dataset].classes
    model = models.build(**p.model, classes=classes, dropout=p.dropout, seed=seeds.derive(*stream, "init")).to(place)
    checkpoint = output.with_name("checkpoint.safetensors")

    history = training.train(model, data, test, training.Settings(**p.training), stream, checkpoint, p.code)

    models.save(models.split(model)[0], output)
    records.write_provenance(
        Path(snakemake.output.record),
        {"model": p.model, "dropout": p.dropout, "training": p.training, "train_size": len(data)},
        map(Path, (snakemake.input.train, snakemake.input.test)),
        dataset=snakemake.wildcards.dataset,
        public=p.dataset,
        history=history,
        unofficial_data=p.unofficial,
        device=str(place),
        computed_in=str(training.computes_in(p.training["precision"], place)),
        code=p.code,
    )
    checkpoint.unlink(missing_ok=True)
