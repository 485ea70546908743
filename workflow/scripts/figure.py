"""Any figure: records -> PDF, PNG and the numbers in it, by the module of dprobust.plots for its kind."""

from _job import job

with job(snakemake):
    from importlib import import_module
    from pathlib import Path

    from dprobust import records
    from dprobust.plots import style
    from dprobust.study import Run

    p, output = snakemake.params, snakemake.output
    privacy = [Path(path) for path in snakemake.input.privacy]
    figure, data = import_module(f"dprobust.plots.{p.settings['metric']}").draw(
        records.read(map(Path, snakemake.input.records)),
        [Run.parse(name) for name in p.runs],
        p.settings,
        style.epsilons(records.read(privacy)) if privacy else {},
        p.label,
    )
    style.save(figure, Path(output.pdf), Path(output.png))
    records.write_table(Path(output.data), data)
