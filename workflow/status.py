"""What of a study is trained, measured, missing and damaged, and what its jobs have cost: make status, cost, check.

Called in the repository's root as `python -m workflow.status [progress|cost|check] [OVERLAY ...]`.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import yaml

from dprobust import integrity, seals
from dprobust.errors import UserError
from dprobust.hours import hours, jobs
from dprobust.plan import Plan
from dprobust.progress import progress
from dprobust.study import Study
from workflow.snakemakes import ROOT, config, startup


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.status", description=__doc__.partition(":")[0])
    parser.add_argument("what", choices=["progress", "cost", "check"])
    parser.add_argument("overlays", nargs="*", type=Path, help="as for --configfile of snakemake")
    asked = parser.parse_args()
    try:
        study = Study(config(asked.overlays))
        if asked.what == "check":
            check(Plan(study, ROOT / "workflow" / "scripts"))
            return
        if asked.what == "progress":
            table = progress(Plan(study, ROOT / "workflow" / "scripts"))
            done = f"{table['trained'].sum():.0f} of {table['seeds'][table['trained'].notna()].sum()} trainings"
            done += f" and {table['measured'].sum()} of {table['to_measure'].sum()} records are there"
            for column, form in (("trained", "{:.0f}"), ("accuracy", "{:.2%}"), ("epsilon", "{:.3g}")):
                table[column] = [form.format(value) if pd.notna(value) else "" for value in table[column]]
            if not table["broken"].any():
                del table["broken"]
            foot = f"{done}; snakemake -n tells whether they are still what is asked for"
        else:
            table = hours(each := jobs(Path("results") / study.name), startup() if len(each) else None)
            table = table.round({"hours": 3, "core_hours": 3, "longest": 3, "memory": 0, "startup_share": 3})
            foot = "hours of the jobs that finished; memory in MB, of the largest job; start-up: as many times as jobs"
    except (UserError, OSError, yaml.YAMLError) as error:
        sys.exit(f"error: {error}")
    print(f"study {study.name}\n{table.to_string(index=False) if len(table) else 'no job has finished'}\n{foot}")


def check(plan: Plan) -> None:
    """Tell what is missing, has no seal or is damaged; put the damaged aside, so that a run makes them again."""
    found = integrity.examine(integrity.results(plan) + integrity.data(plan))
    for state, meaning in (("missing", "not made yet, or lost"), ("unsealed", "nothing tells whether they are whole")):
        for path in getattr(found, state):
            print(f"{state}: {path}")
        print(f"{len(getattr(found, state))} {state}: {meaning}" if getattr(found, state) else f"0 {state}")
    print(f"{len(found.whole)} whole, {len(found.broken)} damaged")
    seals.check(found.broken)


if __name__ == "__main__":
    main()
