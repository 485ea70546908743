"""The privacy table: privacy records -> CSV, LaTeX, HTML."""

from _job import job

with job(snakemake):
    from pathlib import Path

    from dprobust import records, tables

    rows = records.read(map(Path, snakemake.input))
    records.write_table(Path(snakemake.output.csv), rows)
    table = tables.privacy(rows)
    Path(snakemake.output.html).write_text(tables.html(table), encoding="utf-8")
    Path(snakemake.output.tex).write_text(tables.latex(table, "Privacy of every run.", "tab:privacy"), encoding="utf-8")
