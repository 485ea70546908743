"""Train one run with one seed: arrays -> model.safetensors and train.json."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.stages.train import train

    about = {name: j.about[name] for name in ("dataset", "run", "seed")}
    train(j.spec, j.inputs, j.outputs["model"], j.outputs["record"], about, device(j.spec["device"]))
