"""What the pre-trained convolutions make of a dataset: images -> features, with the labels."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.stages.pretrain import features

    features(j.spec, j.inputs, j.outputs["features"], device(j.spec["device"]))
