"""Draw a figure, or write a table or a page: records -> files."""

from _job import job

with job(snakemake) as j:
    from dprobust.stages.show import show

    show(j.spec, {name: value if isinstance(value, list) else [value] for name, value in j.inputs.items()}, j.outputs)
