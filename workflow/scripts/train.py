"""Train one run with one seed: arrays -> model.safetensors and train.json."""

from _job import device, job

with job(snakemake):
    from pathlib import Path

    import numpy as np

    from dprobust import datasets, models, records, seeds, training

    p, output = snakemake.params, Path(snakemake.output.model)
    settings = training.Settings(**p.training)
    stream = (snakemake.wildcards.seed, snakemake.wildcards.dataset, snakemake.wildcards.run)
    data = datasets.load(Path(snakemake.input.train)).first(p.train_size)
    test = datasets.load(Path(snakemake.input.test)).first(p.test_size)
    if snakemake.input.mirrored:
        mirrored = datasets.load(Path(snakemake.input.mirrored)).images
        data = datasets.Split(np.stack([data.images, mirrored], axis=1), data.labels)
    place = device(p.device)
    model = models.build(**p.model, seed=seeds.derive(*stream, "init"))
    if snakemake.input.features:
        models.load_features(model, Path(snakemake.input.features))
    trained = (models.split(model)[1] if snakemake.input.features else model).to(place)
    checkpoint = output.with_name("checkpoint.safetensors")

    history = training.train(trained, data, test, settings, stream, checkpoint, p.code)

    models.save(model, output)
    records.write_provenance(
        Path(snakemake.output.record),
        {"model": p.model, "training": p.training, "train_size": p.train_size, "test_size": p.test_size},
        map(Path, snakemake.input),
        **{name: snakemake.wildcards[name] for name in ("dataset", "run", "seed")},
        mechanism=settings.mechanism(len(data)),
        history=history,
        unofficial_data=p.unofficial,
        device=str(place),
        code=p.code,
    )
    checkpoint.unlink(missing_ok=True)
