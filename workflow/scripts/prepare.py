"""Make what a metric needs besides models and images."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.stages.prepare import prepare
    from dprobust.study import Study

    device("cpu")
    mirrors = Study(snakemake.config).mirrors_of(j.about["material"])
    prepare(j.spec, j.inputs, j.outputs["item"], mirrors)
