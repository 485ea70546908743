"""Get a dataset: verified files -> arrays."""

from _job import job

with job(snakemake) as j:
    from dprobust import sources
    from dprobust.study import Study

    # Mirrors are no parameter of the rule: another mirror gives the same files, and makes nothing anew.
    study, source = Study(snakemake.config), j.spec["source"]
    mirrors, own = study.given(source)["mirrors"], study.registry.sources
    sources.prepare(source, j.outputs["source"].parent, mirrors, j.spec["sha256"], own)
