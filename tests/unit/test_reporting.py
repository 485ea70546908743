"""The report: one page that loads nothing, and its captions."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from browser import shown
from helpers import ROOT
from snakemake.utils import update_config

from dprobust import reporting
from dprobust.errors import UserError
from dprobust.plan import Plan
from dprobust.showing import intervals
from dprobust.study import Study

TEMPLATE = ROOT / "workflow/report/report.html.jinja"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """Ids, links, sources and the order of what is read."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.open, self.headings, self.order = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.order.append(found.get("class", tag) if tag in ("div", "details", "img", "table") else tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


@pytest.fixture
def items(tmp_path):
    (tmp_path / "c.rst").write_text("**{{ snakemake.params.told.seeds }} seeds** & *more*.", encoding="utf-8")
    (tmp_path / "fig2.png").write_bytes(PNG)
    (tmp_path / "fig2.csv").write_text("run,eps,mean\nsgd,0.1,1.23456789e-7\nx<y,,2.0\n")
    (tmp_path / "table1.html").write_text('<table class="data"><tr><td>7</td></tr></table>')
    (tmp_path / "own.html").write_text("<p>of a page</p>")
    (tmp_path / "own.csv").write_text("a,b\n1,2\n")
    kinds = {"fig2": ("figure", "pdf png csv"), "table1": ("table", "csv tex html"), "own": ("page", "html csv")}
    return [
        (
            kind,
            name,
            f"Title & {name}",
            tmp_path / "c.rst",
            {"seeds": 2},
            [tmp_path / f"{name}.{s}" for s in ends.split()],
        )
        for name, (kind, ends) in kinds.items()
    ]


def made(items, **more):
    arguments = {"title": "A <study>", "label": "smoke & test", "facts": [("code", "0123456789abcdef" * 3)]} | more
    return reporting.page(TEMPLATE, items=items, **arguments)


def test_the_page_holds_everything_and_loads_nothing(items):
    text = made(items)
    page = Page(text)
    assert not page.open
    assert all(source.startswith("data:image/png;base64,") for source in page.sources) and len(page.sources) == 1
    assert base64.b64decode(page.sources[0].partition(",")[2]) == PNG
    assert all(link.startswith("#") for link in page.links) and "@import" not in text and "url(" not in text
    assert "A &lt;study&gt;" in text and "smoke &amp; test" in text and "<study>" not in text
    assert "<p>of a page</p>" in text and "<td>7</td>" in text
    assert "1.235e-07" in text and "x&lt;y" in text and "nan" not in text
    assert "<strong>2 seeds</strong> &amp; <em>more</em>." in text


def test_kinds_are_grouped_and_linked(items):
    page = Page(made(reversed(items)))
    assert page.headings == [
        *("Figures", "fig2 · Title & fig2", "Tables", "table1 · Title & table1", "Pages", "own · Title & own")
    ]
    assert page.links == ["#fig2", "#table1", "#own"] and page.ids == ["fig2", "table1", "own"]
    assert Page(made(items[:1])).headings == ["Figures", "fig2 · Title & fig2"]


def test_what_explains_stands_after_the_verdicts(items, tmp_path):
    (tmp_path / "claims.json").write_text("{}")
    (tmp_path / "claims.html").write_text("<p>judged</p>")
    verdicts = ("claims", "claims", "T", *items[1][3:5], [tmp_path / "claims.html", tmp_path / "claims.json"])
    table, page = ("table", "why_shares", *items[1][2:], 1), items[2]
    later = ("figure", "families", *items[0][2:], 2)
    found = Page(made([later, items[0], page, table, verdicts])).headings
    assert [head.partition(" ·")[0] for head in found] == [
        *("Verdicts", "claims", "Why", "why_shares", "families", "Figures", "fig2", "Pages", "own")
    ]
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(config, yaml.safe_load((ROOT / "presets" / "why.yaml").read_text(encoding="utf-8")))
    plan = Plan(Study(config), ROOT / "workflow" / "scripts")
    told = {item["name"]: item["explains"] for item in plan.report(TEMPLATE)["items"]}
    assert {name for name, explains in told.items() if explains} == {
        "why",
        "why_shares",
        "families_clip",
        "families_lr",
    }
    assert told["privacy"] == 0 and told["why"] == told["why_shares"] == 1 and told["families_lr"] == 2


def test_captions_stand_above_the_numbers(items):
    order = [name for name in Page(made(items)).order if name in ("img", "caption", "details", "scroll", "data")]
    # Figure: caption, then the table of its numbers; table: caption, table.
    assert order[:3] == ["img", "caption", "details"]
    assert order[order.index("data", 5) - 2 : order.index("data", 5)] == ["caption", "scroll"]


def test_displays_of_one_name_have_their_own_anchor(items):
    twice = [items[0], ("table", "fig2", *items[1][2:])]
    page = Page(made(twice))
    assert page.ids == ["fig2", "table-fig2"] and page.links == ["#fig2", "#table-fig2"]


def test_links_are_apart_and_long_words_wrap(items):
    text = made([items[0], ("table", "t", *items[1][2:]), ("table", "u", *items[1][2:])])
    assert re.search(r"</a>\s+<a href", text) and "</a><a" not in text
    assert re.search(r"dd \{[^}]*overflow-wrap: anywhere", text)


def test_of_many_numbers_the_first_are_shown(items, tmp_path):
    pd.DataFrame({"a": range(reporting.ROWS + 5)}).to_csv(tmp_path / "fig2.csv", index=False)
    text = made(items)
    assert f"The first {reporting.ROWS} of {reporting.ROWS + 5} rows; all are in fig2.csv." in text
    assert f"<td>{reporting.ROWS - 1}</td>" in text and f"<td>{reporting.ROWS}</td>" not in text


def test_a_figure_without_numbers(items, tmp_path):
    for content in ("", None):
        (tmp_path / "fig2.csv").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "fig2.csv").write_text(content)
        files = [tmp_path / "fig2.png", *([tmp_path / "fig2.csv"] if content is not None else [])]
        assert "<details>" not in made([(*items[0][:5], files)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ snakemake.params.told.sedes }}", "own.rst: 'dict object' has no attribute 'sedes'"),
        ("{{ snakemake.params.n }}", "own.rst: .* has no attribute 'n'"),
        ("ok\n{% if %}", "own.rst: line 2: "),
    ],
)
def test_a_wrong_caption_is_named(tmp_path, text, message):
    (tmp_path / "own.rst").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        reporting.caption_html(tmp_path / "own.rst", {"seeds": 2})


EPS, LOSSES = [0.0, 0.1], ["ce", "margin"]
MEASURED = {
    "clean": {"images": None},
    "fgsm": {"eps": EPS, "losses": LOSSES},
    "pgd": {"eps": EPS, "losses": LOSSES, "alpha": 0.01, "steps": [30, 40], "random_start": False, "restarts": 1},
    "corruptions": {"source": "auto", "sets": None},
    "distances": {"deepfool": True},
}
TOLD = {
    "title": "Is it so?",
    "settings": {"title": "A title", "losses": ["ce", "worst"], "loss": "worst", "eps": 0.1, "paper": "t.csv"},
    "seeds": 5,
    "intervals": intervals(5),
    "images": dict.fromkeys(MEASURED, 1234),
    "measured": MEASURED,
    "trained": "epochs: 51 (SGD), 52 (DP-SGD)",
    "delta": 1e-6,
    "dataset": "mnist",
    "pretraining": None,
}
CAPTIONS = [
    *(ROOT / "dprobust/metrics" / name / "caption.rst" for name in ("pgd", "corruptions")),
    *(
        ROOT / "dprobust/displays" / name / "caption.rst"
        for name in ("accuracy", "privacy", "summary", "fragile_images")
    ),
    *(ROOT / "workflow/captions" / f"{name}.rst" for name in ("table1", "table2")),
]


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("plain", [True, False])
def test_captions_of_tables_and_pages_have_no_holes(path: Path, plain):
    told = TOLD
    if not plain:
        pgd = MEASURED["pgd"] | {"random_start": True, "restarts": 3}
        settings = {"title": "", "losses": ["margin"], "loss": "ce", "eps": 0.1, "paper": None}
        told = TOLD | {"title": "", "settings": settings, "seeds": 1, "measured": MEASURED | {"pgd": pgd}}
        told["intervals"] = intervals(1)
    text = reporting.caption_html(path, told)
    assert text.startswith("<p><strong>") and "problematic" not in text and "system-message" not in text
    words = re.sub(r"<[^>]+>", "", text)
    assert "{" not in words and "None" not in words and "  " not in words and " ." not in words and " ," not in words
    assert ".." not in words and "?." not in words and "{{" not in words


def test_captions_say_what_the_marks_mean():
    one, two = (
        " ".join(reporting.caption_html(ROOT / f"workflow/captions/{name}.rst", TOLD).split())
        for name in ("table1", "table2")
    )
    assert "5 seed(s), in square brackets 95 % intervals over seeds and images together" in one
    for said in (
        "In round brackets what the paper prints",
        "after = what is computed",
        "A star marks a misprint",
    ):
        assert said in two


def test_a_browser_shows_the_page_whole_on_a_phone(items, tmp_path):
    wide = "<table class='data'><tr>" + "<td>123456789</td>" * 60 + "</tr></table>"
    (tmp_path / "table1.html").write_text(wide)
    page = tmp_path / "page.html"
    page.write_text(made(items, title="w" * 200, facts=[("code", "0123456789abcdef" * 9)]), encoding="utf-8")
    found, console = shown(page, tmp_path, (390, 1280))
    assert console == []
    for view in found.values():
        assert (view.overflow, view.images, view.broken) == (0, 1, 0)


def test_the_page_may_load_nothing(items, tmp_path):
    (tmp_path / "own.html").write_text('<img src="missing.png">')
    page = tmp_path / "page.html"
    page.write_text(made(items), encoding="utf-8")
    _, console = shown(page, tmp_path, (390,))
    assert any("Content Security Policy" in line for line in console)


def test_the_browser_would_tell(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<div style="width: 500px">wide</div><img src="data:image/png;base64,AAAA"><img src="missing.png">'
        "<script>console.error('told')</script>"
    )
    found, console = shown(page, tmp_path, (390, 1280))
    assert found[390].overflow > 0 and found[1280].overflow == 0
    assert found[390].broken == 2 and any("told" in line for line in console)
