"""Tables as HTML and LaTeX."""

import math
import re
import shutil
import subprocess

import pandas as pd
import pytest
from makers import runs

from dprobust import rendering

NASTY = r"100 % of A&B, x_1 #2 {a} ~b^c \d $e$ <f> [g] l∞ ≤ 2"
TABLE = pd.DataFrame({"σ_x": ["[2.61]", "*a", NASTY], "50 %": ["1.00 ± 0.10", "−2", "∞"]})


def test_specials_are_escaped_in_the_caption_as_in_the_cells():
    text = rendering.latex(TABLE, NASTY, "tab:my_table")
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    assert caption.startswith(r"100 \% of A\&B, x\_1 \#2 \{a\} \textasciitilde{}b\textasciicircum{}c \textbackslash{}d")
    assert r"\$e\$ $<$f$>$ [g] l$\infty$ $\leq$ 2" in caption and text.isascii()
    for special in "%&#_$":
        body = text.replace(r"\label{tab:my_table}", "")
        body = re.sub(r" & |\$(\\\w+|[<>−-])\$", "", body)  # between cells; mathematical signs
        assert re.search(rf"(?<!\\){re.escape(special)}", body) is None, special


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_it_compiles(tmp_path):
    plain = pd.DataFrame({("", "eps"): ["0.1"], ("SGD", "paper"): ["[2.61]"], ("SGD", "ours"): ["1 ± 2"]})
    for name, table in (("nasty_1", TABLE), ("plain", plain)):
        rendering.write(table, tmp_path / f"{name}.html", tmp_path / f"{name}.tex", NASTY, "smoke_test, 5 %")
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{nasty_1}\input{plain}\end{document}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_note_stands_on_both(tmp_path):
    page, paper = tmp_path / "t.html", tmp_path / "t.tex"
    rendering.write(TABLE, page, paper, "Title", "smoke test & more")
    assert "smoke test &amp; more" in page.read_text() and r"\caption{Title (smoke test \& more).}" in paper.read_text()
    assert r"\label{tab:t}" in paper.read_text()
    rendering.write(TABLE, page, paper, "Title")
    assert '<p class="soft">' not in page.read_text() and r"\caption{Title.}" in paper.read_text()


def test_long_cells_may_be_broken_and_markup_is_escaped():
    long = "a guarantee that takes more than forty characters to say & <b>more</b>"
    text = rendering.html(pd.DataFrame({"a": ["short", long]}))
    assert "<td>short</td>" in text and '<td class="long">a guarantee' in text and "<b>" not in text
    assert long.removesuffix("<b>more</b>").replace("&", "&amp;") in text
    assert "p{5cm}" in rendering.latex(pd.DataFrame({"a": ["short", long]}), "c", "l")


def test_headings_are_unique_and_as_short_as_they_can_be():
    plain = runs("sgd", {"sigma": [1.3, 2.0], "clip": 1.0})
    assert list(rendering.headings(plain, short=True).values()) == ["SGD", "σ = 1.3, C = 1", "σ = 2, C = 1"]
    assert list(rendering.headings(plain).values())[1] == "DP-SGD σ = 1.3, C = 1"
    close = runs({"sigma": [1.3, 1.3000001], "clip": 1.0})  # told apart in no label
    assert len(set(rendering.headings(close, short=True).values())) == 2


def test_intervals_as_text():
    assert rendering.interval(84.123, 83.006, 85.2) == "84.12 [83.01, 85.20]"
    assert rendering.interval(-3.0, -4.04, 0.26, 1, "+") == "−3.0 [−4.0, +0.3]"
    assert rendering.interval(-0.001, -1.0, 1.0) == "0.00 [−1.00, 1.00]"  # what is rounded to 0 has no sign
    assert rendering.interval(52.0, math.nan, math.nan) == "52.00" and rendering.interval(math.nan, 0.0, 1.0) == ""
    assert rendering.covers(2) == "95 %" and rendering.covers(1) == "95 %, images only"
