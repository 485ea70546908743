"""The report of a study: one self-contained HTML page of its figures, tables and pages, captions, numbers and facts."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from docutils.core import publish_parts
from markupsafe import Markup

from dprobust.errors import UserError
from dprobust.rendering import html

WHY = "why"
GROUPS = {"claims": "Verdicts", WHY: "Why", "figure": "Figures", "table": "Tables", "page": "Pages"}
"""Kind of display -> heading of its group, in the order of the report; after the verdicts stands what explains them."""
ROWS = 1000
"""So many rows of a figure's numbers are shown; all are in its CSV."""


class Item(NamedTuple):
    """A display in the report."""

    kind: str
    """claims, figure, table or page."""
    name: str
    """Its key in the config."""
    title: str
    caption: Path
    """Its caption: Jinja, then reStructuredText."""
    told: Mapping[str, Any]
    """What the caption can use, as ``snakemake.params.told``."""
    files: Iterable[Path]
    """Its files; those needed here are of a figure PNG and CSV, of a table HTML, of a page HTML and CSV, of
    claims HTML and JSON (what was judged, for the template)."""
    explains: int = 0
    """Its place among what tells why, from 1, whatever its kind: `explains` of its `Display`; 0: it does not."""


def page(
    template: Path,
    title: str,
    label: str,
    facts: Iterable[tuple[str, str]],
    items: Iterable[Item | tuple],
) -> str:
    """The report as HTML. It loads nothing: images and styles are in it.

    Args:
        template: Jinja template of the page.
        title: of the study.
        label: what must be known of every number in it; empty for nothing.
        facts: (name, text), what a reader should know first.
        items: the displays (`Item`, or its fields as a tuple), in the order wanted within their kind.

    Raises:
        UserError: a caption that cannot be rendered.
    """
    groups: dict[str, list[dict[str, Any]]] = {heading: [] for heading in GROUPS.values()}
    anchors: set[str] = set()
    for item in (Item(*fields) for fields in items):
        anchor = item.name if item.name not in anchors else f"{item.kind}-{item.name}"
        anchors.add(anchor)
        groups[GROUPS[WHY if item.explains else item.kind]].append({"anchor": anchor} | _shown(item))
    groups[GROUPS[WHY]].sort(key=lambda shown: shown["explains"])
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = {heading: entries for heading, entries in groups.items() if entries}
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title, label=label, facts=list(facts), groups=shown
    )


def caption_html(path: Path, told: Mapping[str, Any]) -> Markup:
    """A caption as Snakemake's own report renders it: Jinja with ``snakemake.params.told``, then reStructuredText.

    Raises:
        UserError: the file uses what is not told, or its Jinja is wrong.
    """
    try:
        template = jinja2.Template(path.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
        text = template.render(snakemake=SimpleNamespace(params=SimpleNamespace(told=told)))
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"{path}: line {error.lineno}: {error.message}; a caption is Jinja and reStructuredText"
        ) from None
    except jinja2.UndefinedError as error:
        raise UserError(
            f"{path}: {error.message}; a caption can use snakemake.params.told.{{{', '.join(told)}}}"
        ) from None
    options = {"report_level": 5, "_disable_config": True}
    return Markup(publish_parts(text, writer="html", settings_overrides=options)["body"])


def _shown(item: Item) -> dict[str, Any]:
    """What the template shows of a display."""
    files = {path.suffix[1:]: path for path in map(Path, item.files)}
    shown = {"kind": item.kind, "name": item.name, "title": item.title, "explains": item.explains}
    shown |= {"caption": caption_html(Path(item.caption), item.told), "image": "", "html": "", "numbers": ""}
    if item.kind == "figure":
        shown["image"] = base64.b64encode(files["png"].read_bytes()).decode()
    else:
        shown["html"] = Markup(files["html"].read_text(encoding="utf-8"))
    if item.kind == "claims":
        shown["judged"] = json.loads(files["json"].read_text(encoding="utf-8"))
    elif item.kind != "table" and "csv" in files:
        shown["numbers"] = _numbers(files["csv"])
    return shown


def _numbers(csv: Path) -> Markup:
    """The numbers in a display to four digits, however small they are."""
    try:
        table = pd.read_csv(csv)
    except pd.errors.EmptyDataError:
        return Markup("")
    note = f"The first {ROWS} of {len(table)} rows; all are in {csv.name}." if len(table) > ROWS else ""
    table = table[:ROWS].astype(object)
    table = table.where(table.notna(), "")
    return Markup(html(table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value), note))
