"""Make what a metric needs besides models and images."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.registry import load
    from dprobust.study import Study

    device("cpu")
    mirrors = Study(snakemake.config).mirrors_of(j.about["material"])
    load(f"{j.spec['package']}.make").make(j.spec["item"], j.inputs, j.outputs["item"], mirrors)
