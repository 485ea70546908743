"""The privacy table: privacy records -> CSV, LaTeX, HTML."""

from _job import job

with job(snakemake):
    from pathlib import Path

    from dprobust import records
    from dprobust.tables import privacy, render

    output = snakemake.output
    rows = records.read(map(Path, snakemake.input))
    records.write_table(Path(output.csv), rows)
    render.write(privacy.make(rows), Path(output.html), Path(output.tex), "Privacy of every run")
