"""The picture of the rules, docs/rulegraph.svg, from `snakemake --rulegraph` of the paper's study: make rulegraph.

Rules of displays that are made from the same stages stand in one box; arrows that follow from others are left out.
"""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "rulegraph.svg"
Graph = dict[str, list[str]]
"""Box -> the boxes that it is made from."""


def rulegraph() -> Graph:
    """The graph of the rules of config.yaml, displays alike in one box, "fig2, fig3a, ..."."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "dot", "--quiet", "all"]
    dot = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r'^\s*(\d+)\[label = "([^"]+)"', dot, re.MULTILINE))
    above: dict[str, set[str]] = {name: set() for name in names.values()}
    for made, makes in re.findall(r"^\s*(\d+) -> (\d+)$", dot, re.MULTILINE):
        if made != makes:  # `prepare` makes files from its own
            above[names[makes]].add(names[made])
    boxes: dict[frozenset[str], list[str]] = {}
    for name in sorted(above["report"], key=_natural):
        boxes.setdefault(frozenset(above[name]), []).append(name)
    box_of = {name: ", ".join(box) for box in boxes.values() for name in box}
    graph: Graph = {}
    for name in sorted(above, key=_natural):
        if name != "all":
            made = sorted({box_of.get(other, other) for other in above[name]}, key=_natural)
            graph.setdefault(box_of.get(name, name), made)
    return graph


def _natural(name: str) -> list[str]:
    return [part.zfill(4) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _above(graph: Graph, box: str) -> set[str]:
    """All that a box needs, directly or not."""
    return {other for made in graph[box] for other in (made, *_above(graph, made))}


def _columns(graph: Graph) -> list[list[str]]:
    """The boxes from left to right, each just left of the first that needs it."""
    back: dict[str, int] = {}  # columns from the right
    for box in sorted(graph, key=lambda box: -len(_above(graph, box))):
        back[box] = 1 + max((back[other] for other, made in graph.items() if box in made), default=-1)
    return [[box for box in graph if back[box] == i] for i in range(max(back.values()), -1, -1)]


def draw(graph: Graph, path: Path) -> None:
    """Write the picture; what it shows stands in its description, as JSON."""
    columns = _columns(graph)
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rulegraph", "font.family": "sans-serif"})
    texts = {box: textwrap.fill(box, 34) for box in graph}
    heights = {box: 0.55 + 0.22 * (text.count("\n") + 1) for box, text in texts.items()}
    tall = max(sum(heights[box] for box in column) for column in columns)
    widths = [0.09 * max(len(line) for box in column for line in texts[box].split("\n")) + 0.3 for column in columns]
    figure = Figure(figsize=(sum(widths) + 0.6 * (len(widths) - 1) + 0.2, tall))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.1, sum(widths) + 0.6 * (len(widths) - 1) + 0.1), ylim=(0, tall))
    axes.axis("off")
    sides: dict[str, tuple[float, float, float]] = {}
    left = 0.0
    for column, width in zip(columns, widths, strict=True):
        top = tall - (tall - sum(heights[box] for box in column)) / 2
        for box in column:
            middle = top - heights[box] / 2
            sides[box] = (left, left + width, middle)
            style = {"boxstyle": "round,pad=0.02", "facecolor": "#eef3f8", "edgecolor": "#33526e"}
            height = heights[box] - 0.35
            axes.add_patch(mpl.patches.FancyBboxPatch((left, middle - height / 2), width, height, **style))
            axes.text(left + width / 2, middle, texts[box], ha="center", va="center", fontsize=9)
            top -= heights[box]
        left += width + 0.6
    for box, made in graph.items():
        for other in made:
            if any(other in _above(graph, between) for between in made):
                continue
            start, end = (sides[other][1] + 0.04, sides[other][2]), (sides[box][0] - 0.03, sides[box][2])
            arrow = {"arrowstyle": "->", "color": "#8a9bab", "connectionstyle": "arc3,rad=0.0", "linewidth": 0.8}
            axes.annotate("", end, start, arrowprops=arrow, zorder=0)
    about = {"Title": "The rules of the workflow", "Description": json.dumps(graph), "Date": None, "Creator": None}
    figure.savefig(path, metadata=about)


def shown(path: Path) -> Graph:
    """The graph that a picture shows."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", path.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(found[1].replace("&quot;", '"').replace("&gt;", ">").replace("&amp;", "&"))


if __name__ == "__main__":
    draw(rulegraph(), PICTURE)
