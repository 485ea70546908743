"""Any table: records -> CSV, LaTeX, HTML, by the module of dprobust.tables for its metric."""

from _job import job

with job(snakemake):
    from importlib import import_module
    from pathlib import Path

    from dprobust import records
    from dprobust.study import Run
    from dprobust.tables import render

    p, output = snakemake.params, snakemake.output
    data, table = import_module(f"dprobust.tables.{p.settings['metric']}").make(
        records.read(map(Path, snakemake.input)), [Run.parse(name) for name in p.runs], p.settings
    )
    records.write_table(Path(output.csv), data)
    Path(output.html).write_text(render.html(table), encoding="utf-8")
    size = f"{p.n} test images, {p.seeds} seed{'s' if p.seeds > 1 else ''}"
    caption = "; ".join(filter(None, (p.settings["title"], size, p.label)))
    Path(output.tex).write_text(render.latex(table, f"{caption}.", f"tab:{p.name}"), encoding="utf-8")
