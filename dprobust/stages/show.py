"""Draw a figure, or write a table or a page: records -> files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dprobust import records
from dprobust.registry import load
from dprobust.runs import Run
from dprobust.showing import Given


def show(spec: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]], outputs: Mapping[str, Path]) -> None:
    """Show records.

    Args:
        spec: `dprobust.plan.Plan.show`.
        inputs: `records`, `arrays`, `privacy`, `trained`, `pretrained`: files, those of the records in the order of the
            specification; `flags_METRIC`, records that cast doubt on runs; `paper`, the file with stated values;
            `needs_NAME`, what else the display needs.
        outputs: suffix -> file.
    """
    settings = load(f"{spec['package']}.display").Display(**spec["settings"])
    told = given(spec, inputs)
    first, second = load(f"{spec['package']}.show").show(told, settings)
    if spec["kind"] == "figure":
        from dprobust import style

        style.save(first, outputs["pdf"], outputs["png"])
        records.write_table(outputs["csv"], second)
    elif spec["kind"] == "table":
        from dprobust import rendering

        records.write_table(outputs["csv"], first)
        rendering.write(second, outputs["html"], outputs["tex"], settings.title, told.footnote)
    elif spec["kind"] == "page":
        records.write_text(outputs["html"], first)
        records.write_table(outputs["csv"], second)
    else:
        records.write_table(outputs["csv"], first)
        for suffix, text in second.items():
            records.write_text(outputs[suffix], text)


def given(spec: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]]) -> Given:
    """What a display is given: its records, read."""
    runs = tuple(Run(**run) for run in spec["runs"])
    by_metric: dict[str, list[Path]] = {}
    for (metric, *_), path in zip(spec["records"], inputs["records"], strict=True):
        by_metric.setdefault(metric, []).append(path)
    arrays = {}
    if inputs["arrays"]:
        for (metric, dataset, run, seed), path in zip(spec["records"], inputs["arrays"], strict=True):
            arrays[metric, dataset, run, seed] = records.Arrays(path)
    privacy = records.read(inputs["privacy"]) if inputs["privacy"] else pd.DataFrame()
    if not privacy.empty:  # a temperature changes nothing of a model's privacy
        scaled = [privacy[privacy["run"] == r.base].assign(run=r.name) for r in runs if r.training and r.base != r.name]
        privacy = pd.concat([privacy, *scaled], ignore_index=True)
    paper = inputs.get("paper")
    flags = {}
    for metric, doubt in spec.get("flags", {}).items():
        settings = load(f"{doubt['package']}.settings").Metric(**doubt["settings"])
        by, found = load(f"{doubt['package']}.flags").flags(records.read(inputs[f"flags_{metric}"]), settings)
        flags[by] = found
    return Given(
        runs=runs,
        datasets=tuple(spec["datasets"]),
        records={metric: records.read(paths) for metric, paths in by_metric.items()},
        arrays=arrays,
        privacy=privacy,
        trained=tuple(records.read_json(path) for path in inputs["trained"]),
        pretrained=tuple(records.read_json(path) for path in inputs["pretrained"]),
        paper=pd.read_csv(paper[0]) if paper else None,
        files={name.removeprefix("needs_"): paths[0] for name, paths in inputs.items() if name.startswith("needs_")},
        flags=flags,
        note=spec["note"],
    )
