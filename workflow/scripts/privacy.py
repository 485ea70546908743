"""Account for the privacy of one run, from what its training really did."""

from _job import job

with job(snakemake):
    import json
    from pathlib import Path

    from dprobust import privacy, records

    wildcards = snakemake.wildcards
    mechanisms = [json.loads(Path(path).read_text())["mechanism"] for path in snakemake.input]
    if any(mechanism != mechanisms[0] for mechanism in mechanisms):
        raise AssertionError(f"the seeds of {wildcards.run} were not trained alike: {mechanisms}")
    records.write(
        Path(snakemake.output.record),
        (
            {"dataset": wildcards.dataset, "run": wildcards.run} | mechanisms[0] | row
            for row in privacy.account(**mechanisms[0], deltas=snakemake.params.deltas)
        ),
    )
