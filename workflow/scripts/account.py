"""Account for the privacy of one run, from what its trainings really did."""

from _job import job

with job(snakemake) as j:
    from dprobust.stages.account import account

    account(j.spec, j.inputs["trained"], j.outputs["record"], {name: j.about[name] for name in ("dataset", "run")})
