"""Pre-train the convolutions of a network on public images."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.stages.pretrain import pretrain

    place = device(j.spec["device"])
    pretrain(j.spec, j.inputs, j.outputs["features"], j.outputs["record"], j.about["dataset"], place)
