"""Train several runs and seeds side by side: arrays -> model.safetensors and train.json of each."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.stages.train import train_together

    trainings = [
        dict(zip(("dataset", "run", "seed"), map(str, names), strict=True)) for names in snakemake.params.trainings
    ]
    train_together(j.spec, j.inputs, j.outputs["models"], j.outputs["records"], trainings, device(j.spec[0]["device"]))
