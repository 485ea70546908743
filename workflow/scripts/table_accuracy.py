"""The accuracy table: trainings, pre-trainings, the paper's values -> CSV, LaTeX, HTML."""

from _job import job

with job(snakemake):
    import json
    from pathlib import Path

    import pandas as pd

    from dprobust import records
    from dprobust.tables import accuracy, render

    source, output = snakemake.input, snakemake.output
    trained, pretrained = (
        [json.loads(Path(path).read_text()) for path in paths] for paths in (source.trained, source.pretrained)
    )
    paper = pd.read_csv(source.paper).set_index(["dataset", "run"])["accuracy"]
    data, shown = accuracy.make(trained, pretrained, paper.to_dict())
    records.write_table(Path(output.csv), data)
    render.write(shown, Path(output.html), Path(output.tex), "Accuracy without attack", snakemake.params.label)
