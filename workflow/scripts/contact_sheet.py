"""The contact sheet of MNIST-C: corrupted test sets -> PDF and PNG."""

from _job import job

with job(snakemake):
    import json
    from pathlib import Path

    import numpy as np

    from dprobust import datasets
    from dprobust.plots import contact_sheet, style

    source, output = snakemake.input, snakemake.output
    (origin,) = set(json.loads(Path(source.origins).read_text()).values())
    with np.load(source.sets, allow_pickle=False) as sets:
        figure = contact_sheet.draw(
            datasets.load(Path(source.test)).images[:, 0], sets, snakemake.params.index, origin, snakemake.params.label
        )
    style.save(figure, Path(output.pdf), Path(output.png))
