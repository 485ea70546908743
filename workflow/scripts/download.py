"""Get a dataset: verified files -> arrays."""

from _job import job

with job(snakemake):
    from pathlib import Path

    from dprobust import datasets

    datasets.prepare(snakemake.wildcards.dataset, Path(snakemake.output.source).parent, snakemake.params.mirrors)
