"""Get a dataset: verified files -> arrays."""

from _job import job

with job(snakemake) as j:
    from dprobust.stages.get import get
    from dprobust.study import Study

    # Mirrors are no parameter of the rule: another mirror gives the same files, and makes nothing anew.
    study = Study(snakemake.config)
    mirrors = study.given(j.spec["source"])["mirrors"]
    get(j.spec, j.outputs["source"].parent, mirrors, study.registry.sources)
