"""Accuracy against the FGSM perturbation: records -> figure and the numbers in it."""

from _job import job

with job(snakemake):
    from pathlib import Path

    from dprobust import plots, records
    from dprobust.study import Run

    p, output = snakemake.params, snakemake.output
    privacy = [Path(path) for path in snakemake.input.privacy]
    epsilons = plots.epsilons(records.read(privacy)) if privacy else {}
    figure, data = plots.fgsm(
        records.read(map(Path, snakemake.input.records)),
        [Run.parse(name) for name in p.runs],
        p.settings["losses"],
        epsilons,
        title=p.settings["title"],
        note=p.label,
        paper_gap=p.settings["paper_gap"],
    )
    plots.save(figure, Path(output.pdf), Path(output.png))
    records.write_table(Path(output.data), data)
