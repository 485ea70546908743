"""Account for the privacy of a run, from what its trainings really did."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dprobust import privacy, records


def account(spec: Mapping[str, Any], trained: Sequence[Path], output: Path, about: Mapping[str, str]) -> None:
    """Write epsilon at each delta, for each adjacency of the sampler, by each accountant, as a record.

    Args:
        spec: `dprobust.plan.Plan.account`.
        trained: records of the run's trainings, a seed each.
        output: where the record goes, CSV.
        about: dataset and run.
    """
    told = [records.read_json(path) for path in trained]
    mechanisms = [record["mechanism"] for record in told]
    if any(mechanism != mechanisms[0] for mechanism in mechanisms):
        raise AssertionError(f"the seeds of {about['run']} were not trained alike: {mechanisms}")
    rows = list(privacy.account(**mechanisms[0], deltas=spec["deltas"]))
    if coupled := told[0].get("coupled"):
        for row in rows:
            row["guarantee"] += f"; coupled ({coupled['group']}): {coupled['meaning']}"
    records.write(output, (dict(about) | mechanisms[0] | row for row in rows))
