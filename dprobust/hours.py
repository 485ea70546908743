"""What the jobs of a study have cost, from Snakemake's benchmark files. Needs neither torch nor Snakemake."""

from pathlib import Path

import pandas as pd

COLUMNS = ["stage", "job", "seconds", "cpu_seconds", "memory"]
HOURS = ["stage", "jobs", "hours", "core_hours", "longest", "memory"]


def jobs(results: Path) -> pd.DataFrame:
    """The finished jobs.

    Args:
        results: a study's results.

    Returns:
        A row a job: stage (a metric is a stage by itself), job (its benchmark file's path below the stage, without
        suffix), seconds (of the clock), cpu_seconds (processor time), memory (largest resident set, MB; nan for a job
        of less than a second).
    """
    rows = []
    for path in sorted(results.glob("benchmarks/**/*.tsv")):
        stage, *rest = path.relative_to(results / "benchmarks").with_suffix("").parts
        last = pd.read_csv(path, sep="\t").iloc[-1]
        rows.append([stage, "/".join(rest), last["s"], last["cpu_time"], last["max_rss"]])
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in COLUMNS[2:]:
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def hours(each: pd.DataFrame, startup: float | None = None) -> pd.DataFrame:
    """What they have cost by stage.

    Args:
        each: as `jobs` gives it.
        startup: seconds that a job needs before it works (the interpreter and its imports); None if not measured.

    Returns:
        A row a stage, and a last one, "total": stage, jobs, hours (of the clock, one job after the other), core_hours
        (processor time), longest (hours of the longest job), memory (largest resident set of a job, MB), and where it
        is known startup_share (of the hours, 0 to 1). Empty if no job has finished.
    """
    columns = [*HOURS, *(["startup_share"] if startup is not None else [])]
    if each.empty:
        return pd.DataFrame(columns=columns)
    rows = []
    for stage, group in [*each.groupby("stage", sort=True), ("total", each)]:
        seconds = group["seconds"].sum()
        row = [stage, len(group), seconds / 3600, group["cpu_seconds"].sum() / 3600]
        row += [group["seconds"].max() / 3600, group["memory"].max()]
        if startup is not None:
            row.append(min(1.0, len(group) * startup / seconds) if seconds else float("nan"))
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def markdown(table: pd.DataFrame) -> str:
    """A table of `hours` in Markdown."""
    heads = {"stage": "stage", "jobs": "jobs", "hours": "hours", "core_hours": "core-hours"}
    heads |= {"longest": "longest job, minutes", "memory": "memory, MB", "startup_share": "start-up share"}
    shown = [name for name in heads if name in table]
    lines = [[heads[name] for name in shown], ["---", *["---:"] * (len(shown) - 1)]]
    for row in table.to_dict("records"):
        told = {"stage": row["stage"], "jobs": f"{row['jobs']}", "hours": f"{row['hours']:.2f}"}
        told |= {"core_hours": f"{row['core_hours']:.2f}", "longest": f"{60 * row['longest']:.1f}"}
        told |= {"memory": "" if pd.isna(row["memory"]) else f"{row['memory']:.0f}"}
        if "startup_share" in shown:
            told["startup_share"] = "" if pd.isna(row["startup_share"]) else f"{100 * row['startup_share']:.1f} %"
        lines.append([told[name] for name in shown])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
