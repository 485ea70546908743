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

    def render(caption: str, values: dict) -> Markup:
        """A caption as Snakemake's own report renders it: Jinja, then reStructuredText."""
        text = jinja2.Template(Path(caption).read_text(encoding="utf-8")).render(
            snakemake=SimpleNamespace(params=values)
        )
        return Markup(publish_parts(text, writer="html")["body"])

    p, source = snakemake.params, snakemake.input
    figures = [
        {
            "name": name,
            "title": values["settings"]["title"],
            "caption": render(caption, values),
            "image": base64.b64encode(Path(png).read_bytes()).decode(),
            "numbers": Markup(html(pd.read_csv(csv).round(4))),
        }
        for (name, values), caption, png, csv in zip(
            p.figures.items(), source.figure_captions, source.figures, source.numbers, strict=True
        )
    ]
    shown = p.tables | {"privacy": {"settings": {"title": "Privacy of every run"}}}
    tables = [
        {
            "name": name,
            "title": values["settings"]["title"],
            "caption": render(caption, values),
            "html": Markup(Path(html_file).read_text(encoding="utf-8")),
        }
        for (name, values), caption, html_file in zip(shown.items(), source.table_captions, source.tables, strict=True)
    ]
    template = jinja2.Environment(autoescape=True).from_string(Path(source.template).read_text(encoding="utf-8"))
    facts = [*p.facts, ("code", records.commit() or "not under version control")]
    Path(snakemake.output[0]).write_text(
        template.render(title=p.title, label=p.label, facts=facts, figures=figures, tables=tables),
        encoding="utf-8",
    )
