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

    def numbers(csv: Path) -> pd.DataFrame:
        """A table's numbers to four digits, however small they are."""
        table = pd.read_csv(csv).astype(object).fillna("")
        return table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)

    p, source = snakemake.params, snakemake.input
    figures = [
        {
            "name": name,
            "title": values["settings"]["title"],
            "caption": render(caption, values),
            "image": base64.b64encode(Path(png).read_bytes()).decode(),
            "numbers": Markup(html(numbers(Path(csv)))),
        }
        for (name, values), caption, png, csv in zip(
            p.captions.items(), source.captions[:-1], source.figures, source.numbers, strict=True
        )
    ]
    table = {
        "name": "privacy",
        "html": Markup(Path(source.tables).read_text(encoding="utf-8")),
        "caption": render(source.captions[-1], {}),
    }
    template = jinja2.Environment(autoescape=True).from_string(Path(source.template).read_text(encoding="utf-8"))
    facts = [*p.facts, ("code", records.commit() or "not under version control")]
    Path(snakemake.output[0]).write_text(
        template.render(title=p.title, label=p.label, facts=facts, figures=figures, tables=[table]),
        encoding="utf-8",
    )
