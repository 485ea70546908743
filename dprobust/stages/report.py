"""Write the page of a whole study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dprobust import records, reporting


def report(
    spec: Mapping[str, Any],
    template: Path,
    captions: Sequence[Path],
    output: Path,
) -> None:
    """Write one self-contained page: figures, tables, pages, captions and the facts of the study.

    Args:
        spec: `dprobust.plan.Plan.report`.
        template: Jinja template of the page.
        captions: the caption of each display, in the order of the specification.
        output: the page.
    """
    items = [
        (item["kind"], item["name"], item["title"], caption, item["told"], map(Path, item["files"]), item["explains"])
        for item, caption in zip(spec["items"], captions, strict=True)
    ]
    facts = [*map(tuple, spec["facts"]), ("code", records.commit() or "not under version control")]
    records.write_text(output, reporting.page(template, spec["title"], spec["label"], facts, items))
