"""The privacy table: privacy records -> CSV, LaTeX, HTML."""

from _job import job

with job(snakemake):
    from pathlib import Path

    from dprobust import records
    from dprobust.tables import privacy, render

    rows = records.read(map(Path, snakemake.input))
    records.write_table(Path(snakemake.output.csv), rows)
    table = privacy.make(rows)
    Path(snakemake.output.html).write_text(render.html(table), encoding="utf-8")
    Path(snakemake.output.tex).write_text(render.latex(table, "Privacy of every run.", "tab:privacy"), encoding="utf-8")
