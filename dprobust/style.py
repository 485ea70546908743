"""What all figures share: the style, colours that stay with SGD and DP-SGD, short names, heads, legends, and saving."""

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dprobust.files import replaced
from dprobust.runs import Run

SGD_COLOUR = "#0072B2"
DPSGD_COLOUR = "#D55E00"
BLUES = ("#9AD4F5", "#3AA6B9", "#135E6E", "#0B1F3F")
"""Colours of several runs without privacy, in the order given; plain SGD keeps its own."""
SWEEP = ("#F2A65A", DPSGD_COLOUR, "#9E2A5B", "#3B1550")
"""Colours of several private runs, in the order given (a sweep from small to large): the DP-SGD hue, darkening."""

PAPER = {"linestyle": "", "marker": "X", "markersize": 7, "color": "#CC79A7", "markeredgecolor": "white"}
"""How a value that the paper states is marked."""

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}
GREY = "#555555"
LABEL_WIDTH = 36
"""Characters of a line in a legend."""
LEGEND = 2.4
"""Inches that a legend takes at most."""
LOSS_NAMES = {
    "ce": "float32 cross-entropy (the paper's)",
    "ce_stable": "cross-entropy without round-off",
    "margin": "margin loss",
    "worst": "worst case of the losses, image by image",
}
"""What an attack follows, in legends."""


def colours(runs: Sequence[Run]) -> dict[Run, str]:
    """A colour a run: SGD its own, one DP-SGD run its own, several of a kind shades in the order given."""
    private = [run for run in runs if run.private]
    public = [run for run in runs if not run.private]
    plain = [run for run in public if run.name == "sgd" or len(public) == 1]
    others = [run for run in public if run not in plain]
    return (
        dict.fromkeys(plain, SGD_COLOUR)
        | dict(zip(others, shades(BLUES, len(others)), strict=True))
        | dict(zip(private, [DPSGD_COLOUR] if len(private) == 1 else shades(SWEEP, len(private)), strict=True))
    )


def shades(stops: Sequence[str], n: int) -> list[str]:
    return sns.blend_palette(stops, max(n, 2)).as_hex()[:n]


def short(runs: Sequence[Run]) -> dict[Run, str]:
    """Names for heads and ticks, each as short as tells the runs from one another.

    The only run of its algorithm is SGD or DP-SGD; of several, each is called by its settings, less those that all
    private runs share.
    """
    settings = {run: run.setting.split(", ") for run in runs if run.algorithm != "weights" and not run.title}
    names = {}
    for run in runs:
        alike = [parts for other, parts in settings.items() if other.algorithm == run.algorithm]
        if run not in settings:
            names[run] = run.label().partition(" (ε")[0]
        elif len(alike) == 1 or not run.setting:
            names[run] = "DP-SGD" if run.algorithm == "dpsgd" else "SGD"
        else:
            own = [part for part in settings[run] if not all(part in parts for parts in alike)]
            names[run] = ", ".join(own or settings[run])
    # A title may stand for several runs.
    return {run: name if list(names.values()).count(name) == 1 else run.label() for run, name in names.items()}


def over_seeds(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean over seeds of values that are exact, and the number of seeds, for each combination of the columns `by`."""
    table = records.groupby(by, sort=False)["value"].agg(["mean", "count"])
    return table.rename(columns={"count": "seeds"}).reset_index()


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most so many characters; "a = 1" and "round-off" are not torn apart."""
    kept = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return textwrap.fill(kept, width, break_on_hyphens=False).replace("\N{NO-BREAK SPACE}", " ")


def head(figure: Figure, title: str, note: str) -> None:
    """The title above, beside the legend, and below in small print what is to be known of the numbers."""
    width = figure.get_figwidth()
    above = figure.suptitle(wrapped(title, max(20, int(13 * (width - LEGEND)))), fontsize=10, x=0.01, ha="left")
    above.set_parse_math(False)
    if note:
        below = figure.supxlabel(wrapped(note, int(17 * width)), fontsize=7, color="#777777", x=0.01, ha="left")
        below.set_parse_math(False)


def legend(figure: Figure, key: Sequence[tuple[str, Line2D | Patch | None]]) -> None:
    """A legend beside the plot; entries without a line are headings."""
    handles = [line or Line2D([], [], linestyle="") for _, line in key]
    texts = [text if "\n" in text else wrapped(text, LABEL_WIDTH) for text, _ in key]
    box = figure.legend(handles, texts, loc="outside right upper", handlelength=2.2)
    for text, (_, line) in zip(box.get_texts(), key, strict=True):
        text.set_parse_math(False)
        if line is None:
            text.set(color="#777777", style="italic")


def runs_key(labels: dict[Run, str], shade: dict[Run, str], **line: object) -> list[tuple[str, Line2D | None]]:
    """The part of a legend that names the runs."""
    return [("trained with", None)] + [(labels[run], Line2D([], [], color=shade[run], **line)) for run in labels]


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure in the formats of the file names; the same figure is the same bytes."""
    undated = {".pdf": {"CreationDate": None}, ".png": {"Software": None}, ".svg": {"Date": None}}
    _settle(figure)
    for path in paths:
        drawn = BytesIO()  # on a full disk Matplotlib's writers fail in ways of their own
        with mpl.rc_context(STYLE | {"svg.hashsalt": "dprobust"}):
            figure.savefig(drawn, format=path.suffix[1:], metadata=undated[path.suffix])
        with replaced(path) as temporary:
            temporary.write_bytes(drawn.getvalue())


def _settle(figure: Figure) -> None:
    """Lay the figure out once and round where its axes are.

    The solver of the constrained layout orders its unknowns by their addresses in memory, so that its last digits
    differ from process to process, and now and then a pixel with them.
    """
    if figure.get_layout_engine() is None:
        return
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(float(edge), 6) for edge in axes.get_position(original=True).bounds])
