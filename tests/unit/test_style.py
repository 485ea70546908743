"""What figures share: colours and names of any runs, heads, and files that are the same each time."""

import itertools
import math
import random

import kiwisolver
import pandas as pd
import pytest
from makers import runs
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage.color import deltaE_ciede2000, rgb2lab

from dprobust import style
from dprobust.showing import Given

DP = {"sigma": 1.3, "clip": 1.0}
SWEEP = {"sigma": 1.3, "clip": [0.5, 1.0, 2.0, 3.0, 4.0, 5.0]}
LRS = [{"algorithm": "sgd", "lr": [0.01, 0.1]}, {"algorithm": "sgd", "clip": 1.0}, {"algorithm": "sgd", "sigma": 0.5}]
OWN = {"weights": "a.pt", "name": "theirs", "privacy": "none"}


def luminance(colour):
    return rgb2lab(to_rgb(colour))[0]


def test_colours_are_fixed_for_sgd_and_ordered_for_a_sweep():
    sgd, dp = runs("sgd", DP)
    assert style.colours([sgd, dp]) == {sgd: style.SGD_COLOUR, dp: style.DPSGD_COLOUR}
    sgd, *sweep = runs("sgd", SWEEP)
    shades = style.colours([sgd, *sweep])
    assert shades[sgd] == style.SGD_COLOUR and len(set(shades.values())) == 7
    lightness = [luminance(shades[run]) for run in sweep]
    assert lightness == sorted(lightness, reverse=True)


def test_several_runs_without_privacy_are_blue_and_can_be_told_apart():
    shown = runs("sgd", *LRS, OWN, DP, {"sigma": 2.0, "clip": 1.0})
    shades = style.colours(shown)
    assert list(shades) != [] and set(shades) == set(shown) and shades[shown[0]] == style.SGD_COLOUR
    for run, colour in shades.items():
        red, green, _ = to_rgb(colour)
        assert (red > green) == run.private
    for one, other in itertools.combinations(shades.values(), 2):
        assert deltaE_ciede2000(rgb2lab(to_rgb(one)), rgb2lab(to_rgb(other))) > 9


def test_a_single_model_of_any_kind_has_the_colour_of_its_kind():
    for entry, colour in ((OWN, style.SGD_COLOUR), (OWN | {"privacy": "not known"}, style.DPSGD_COLOUR)):
        assert list(style.colours(runs(entry)).values()) == [colour]


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (["sgd", DP], ["SGD", "DP-SGD"]),
        (["sgd", {"sigma": [1.3, 2.0], "clip": 1.0}], ["SGD", "σ = 1.3", "σ = 2"]),
        ([{"sigma": [1.3, 2.0], "clip": [1.0, 3.0], "pair": True}], ["σ = 1.3, C = 1", "σ = 2, C = 3"]),
        (["sgd", {"algorithm": "sgd", "lr": 0.1}, DP], ["SGD", "lr = 0.1", "DP-SGD"]),
        ([{"sigma": 1.3, "clip": 0.5, "noise": ["sigma", "sigma*clip"]}], ["noise σ", "σ = 1.3, C = 0.5"]),
        ([OWN, OWN | {"name": "b", "label": "Ours"}, DP], ["theirs", "Ours", "DP-SGD"]),
        ([{"sigma": [1.3, 2.0], "clip": 1.0, "label": "X"}, "sgd"], None),
    ],
)
def test_short_names_tell_runs_apart(entries, names):
    shown = runs(*entries)
    found = style.short(shown)
    assert list(found) == list(shown)
    assert names is None or list(found.values()) == names


def test_epsilons_for_legends():
    """At the first delta and for the first adjacency, by the tightest accountant."""
    rows = [
        ("a", 1e-6, "add or remove one", 2.0),
        ("a", 1e-6, "add or remove one", 1.9),
        ("a", 1e-6, "replace one", 1.5),
    ]
    rows += [("a", 1e-5, "add or remove one", 1.7)]
    rows += [("b", 1e-5, "replace one", 110.0), ("b", 1e-5, "zero out one", 40.0), ("c", 1e-6, "none", math.inf)]
    given = Given(privacy=pd.DataFrame(rows, columns=["run", "delta", "adjacency", "epsilon"]))
    assert given.epsilons == {"a": 1.9, "b": 110.0, "c": math.inf} and Given().epsilons == {}


def test_lines_are_not_broken_within_a_setting():
    assert style.wrapped("DP-SGD σ = 1.3, C = 0.5, noise σ (ε = 0.78)", 34) == (
        "DP-SGD σ = 1.3, C = 0.5, noise σ\n(ε = 0.78)"
    )
    assert style.wrapped("cross-entropy without round-off", 28) == "cross-entropy without\nround-off"


def test_long_titles_and_notes_stay_on_the_figure_and_off_the_legend():
    with style.mpl.rc_context(style.STYLE):
        figure = Figure(figsize=(7.6, 4), layout="constrained")
        figure.subplots()
        style.legend(figure, [("trained with", None), ("DP-SGD σ = 1.3, C = 1 (ε = 1.89)", style.Line2D([], []))])
        style.head(figure, "words of a title, costs $5 and $6 " * 6, "words of a note " * 30)
        figure.draw_without_rendering()
    width, height = figure.bbox.size
    texts = {
        name: figure.findobj(style_text(value))[0]
        for name, value in (("title", figure.get_suptitle()), ("note", figure.get_supxlabel()))
    }
    boxes = {name: text.get_window_extent() for name, text in texts.items()}
    for box in boxes.values():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
        assert not box.overlaps(figure.legends[0].get_window_extent())
        assert not box.overlaps(figure.axes[0].get_tightbbox())


def style_text(value):
    return lambda artist: getattr(artist, "get_text", lambda: None)() == value


def test_the_same_bytes_wherever_the_layouts_unknowns_lie_in_memory(tmp_path, monkeypatch):
    """Their addresses decide the last digits of a layout: shuffled here, they are as in other processes."""
    make, pool = kiwisolver.Variable, []
    places, settled, files = set(), set(), set()

    def variable(name):
        taken = pool.pop()
        taken.setName(name)
        return taken

    monkeypatch.setattr(kiwisolver, "Variable", variable)
    for trial in range(12):
        pool[:] = [make("") for _ in range(4000)]
        random.Random(trial).shuffle(pool)
        with style.mpl.rc_context(style.STYLE):
            figure = Figure(figsize=(4.1, 4.6), layout="constrained")
            rows = figure.subplots(3, 2, height_ratios=(0.42, 1, 1))
            for axes in rows.flat:
                axes.imshow([[0, 1], [1, 0]])
            rows[2, 0].set(xlabel="x", ylabel="y\ny")
            figure.legend([], [], loc="outside lower center")
            figure.suptitle("T", x=0.01, ha="left")
            figure.draw_without_rendering()
            places.add(repr([axes.get_position(original=True).bounds for axes in figure.axes]))
        style.save(figure, tmp_path / "a.png")
        files.add((tmp_path / "a.png").read_bytes())
        settled.add(repr([axes.get_position(original=True).bounds for axes in figure.axes]))
    assert len(places) > 1 and len(settled) == 1 and len(files) == 1
