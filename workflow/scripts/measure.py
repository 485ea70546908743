"""Measure a metric of one model: a record, and an array for every image."""

from _job import device, job

with job(snakemake) as j:
    from dprobust.stages.measure import measure

    about = {name: j.about[name] for name in ("dataset", "run", "seed")}
    out = j.outputs
    measure(j.spec, j.inputs, out["record"], out["arrays"], out["provenance"], about, device(j.spec["device"]))
