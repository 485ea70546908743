"""One self-contained page: figures, tables, captions and the facts of the study."""

from _job import job

with job(snakemake) as j:
    from dprobust.stages.report import report

    report(j.spec, j.inputs["template"], j.inputs["captions"], j.outputs["page"])
