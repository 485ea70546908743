"""One self-contained page: figures, tables, captions and the facts of the study."""

from _job import job

with job(snakemake):
    import base64
    from pathlib import Path
    from types import SimpleNamespace

    import jinja2
    import pandas as pd
    from docutils.core import publish_parts
    from markupsafe import Markup

    from dprobust import records
    from dprobust.tables.render import html

    p, source = snakemake.params, snakemake.input
    captions = dict(zip(p.captions, map(Path, source.captions), strict=True))

    def show(name: str) -> dict:
        """Name, title and caption, rendered as Snakemake's own report does: Jinja, then reStructuredText."""
        values = p.values.get(name, {})
        template = jinja2.Template(captions[name].read_text(encoding="utf-8"))
        text = template.render(snakemake=SimpleNamespace(params=values))
        caption = publish_parts(text, writer="html", settings_overrides={"report_level": 5})["body"]
        return {"name": name, "title": values.get("settings", {}).get("title", ""), "caption": Markup(caption)}

    def numbers(csv: Path) -> Markup:
        """The numbers in a figure to four digits, however small they are."""
        table = pd.read_csv(csv).astype(object).fillna("")
        return Markup(html(table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)))

    figures, tables = [], []
    for png in map(Path, source.figures):
        csv = png.with_suffix(".csv")
        image = base64.b64encode(png.read_bytes()).decode()
        figures.append(show(png.stem) | {"image": image, "numbers": numbers(csv) if csv.exists() else ""})
    for page in map(Path, source.tables):
        tables.append(show(page.stem) | {"html": Markup(page.read_text(encoding="utf-8"))})
    template = jinja2.Environment(autoescape=True).from_string(Path(source.template).read_text(encoding="utf-8"))
    facts = [*p.facts, ("code", records.commit() or "not under version control")]
    page = template.render(title=p.title, label=p.label, facts=facts, figures=figures, tables=tables)
    Path(snakemake.output[0]).write_text(page, encoding="utf-8")
