"""Get a dataset: verified files -> arrays."""

from _job import job, mirrors

with job(snakemake):
    from pathlib import Path

    from dprobust import datasets

    name, folder = snakemake.wildcards.dataset, Path(snakemake.output.source).parent
    datasets.prepare(name, folder, mirrors(snakemake, name), snakemake.params.sha256)
