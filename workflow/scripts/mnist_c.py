"""The corrupted test sets: archives, or our generator -> arrays."""

from _job import job, mirrors

with job(snakemake):
    from pathlib import Path

    import numpy as np

    from dprobust import datasets, mnist_c

    sets = Path(snakemake.output.sets)
    mnist_c.prepare(
        snakemake.wildcards.source,
        datasets.load(Path(snakemake.input.test)).images[:, 0],
        lambda: np.load(snakemake.input.pattern, allow_pickle=False),
        sets.parent,
        sets,
        mirrors(snakemake, "mnist"),
    )
