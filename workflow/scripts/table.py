"""Any table: records -> CSV, LaTeX and HTML, by the module of dprobust.tables for its metric."""

from _job import job

with job(snakemake):
    from importlib import import_module
    from pathlib import Path

    from dprobust import records
    from dprobust.study import Run
    from dprobust.tables import render

    p, output = snakemake.params, snakemake.output
    data, shown = import_module(f"dprobust.tables.{p.settings['metric']}").make(
        records.read(map(Path, snakemake.input)),
        [Run.parse(name) for name in p.runs],
        p.settings | {"paper": p.paper},
    )
    records.write_table(Path(output.csv), data)
    render.write(shown, Path(output.html), Path(output.tex), p.settings["title"], p.label)
