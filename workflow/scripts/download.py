"""Get a dataset: verified files -> arrays."""

from _job import job

with job(snakemake):
    from pathlib import Path

    from dprobust import datasets

    p, folder = snakemake.params, Path(snakemake.output.source).parent
    datasets.prepare(snakemake.wildcards.dataset, folder, p.mirrors, p.sha256)
