"""The metric of certified and attacked accuracy, and its figure."""

import numpy as np
import pandas as pd
import pytest
import torch
from makers import runs
from pydantic import ValidationError
from torch import nn

from dprobust.bounds import certified
from dprobust.errors import UserError
from dprobust.inference import predict
from dprobust.measuring import Images
from dprobust.metrics.certificates import measure as measuring
from dprobust.metrics.certificates import settings as typed
from dprobust.metrics.certificates.display import Display
from dprobust.metrics.certificates.show import show
from dprobust.showing import Given

BOTH = ["sgd", {"sigma": 1.3, "clip": 1.0}]
SGD, DP = runs(*BOTH)


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 8), nn.ReLU()]
    model, x = nn.Sequential(*layers, nn.Linear(8, 4)).eval(), torch.rand(30, 1, 8, 8)
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
        model[-1].weight *= 5
    y = predict(model, x)
    y[::6] = (y[::6] + 1) % 4
    return model, Images(x, y, torch.arange(30) * 2, torch.arange(30))


def test_each_image_from_both_sides(given):
    model, images = given
    settings = typed.Metric(eps=[0.001, 0.01, 0.03, 0.1])
    result = measuring.measure(model, images, settings)
    table, arrays = pd.DataFrame(result.rows), result.arrays
    assert list(table.columns) == ["metric", "eps", "n", "value"] and (table["n"] == 30).all()
    assert all(name in measuring.measure.__doc__ for name in arrays)
    assert arrays["eps"].tolist() == settings.eps and arrays["clean"].sum() == 25
    proven, left = arrays["margin"] > 0, arrays["attacked"]
    for e, eps in enumerate(settings.eps):  # bisection finds what each eps by itself does
        np.testing.assert_array_equal(proven[e], certified(model, images.x, images.y, eps))
        rows = table[table["eps"] == eps].set_index("metric")["value"]
        assert rows["certified"] == pytest.approx(proven[e].mean()) and rows["attacked"] == pytest.approx(
            left[e].mean()
        )
    assert table.iloc[0].tolist() == ["clean", 0.0, 30, pytest.approx(25 / 30)]
    assert not (proven & ~left).any() and (np.diff(left.astype(int), axis=0) <= 0).all()
    assert 25 == proven[0].sum() > proven[2].sum() > 0 == proven[3].sum() and left[3].sum() < left[0].sum()


def test_an_image_certified_and_broken_ends_the_job(given, monkeypatch):
    model, images = given
    monkeypatch.setattr(measuring, "least_margins", lambda model, x, y, eps: torch.ones(len(eps), len(x)))
    with pytest.raises(RuntimeError, match=r"certified at eps 0\.001 and broken there, test images 0, 12, 24, 36, 48$"):
        measuring.measure(model, images, typed.Metric(eps=[0.001]))


def test_an_image_broken_in_a_smaller_ball_is_broken_in_a_larger(given, monkeypatch):
    model, images = given
    monkeypatch.setattr(measuring, "least_margins", lambda model, x, y, eps: -torch.ones(len(eps), len(x)))
    monkeypatch.setattr(measuring, "pgd", lambda model, x, y, eps, *args, **kwargs: x.flip(0) if eps == 0.01 else x)
    attacked = measuring.measure(model, images, typed.Metric(eps=[0.001, 0.01, 0.03])).arrays["attacked"]
    assert attacked[0].sum() == 25 > attacked[1].sum() > 0
    np.testing.assert_array_equal(attacked[2], attacked[1])


def test_a_network_without_bounds_is_refused_in_a_line():
    images = Images(torch.rand(1, 1, 2, 2), torch.tensor([0]), torch.arange(1), torch.arange(1))
    with pytest.raises(
        UserError, match=r"^bounds: layer 2 \(Sigmoid\) is neither affine nor .*; leave out certificates$"
    ):
        measuring.measure(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid()), images, typed.Metric())


@pytest.mark.parametrize("eps", [[], [0.0], [0.02, 0.01], [0.01, 0.01], [2.0]], ids=str)
def test_settings_that_do_not_fit_are_refused(eps):
    with pytest.raises(ValidationError):
        typed.Metric(eps=eps)


def arrays(seed):
    """Of 50 images: without attack 45 right, then 40 and 35 left, 30 and 10 certified; one fewer of the second seed."""
    place = torch.arange(50).numpy()
    counts = {"clean": 45, "attacked": (40, 35), "margin": (30, 10)}
    made = {name: place < np.array(count)[..., None] - seed for name, count in counts.items()}
    margin = np.where(made["margin"], 0.5, np.where(place < 45, -0.5, -np.inf))
    return made | {"eps": np.array([0.01, 0.02]), "clean": made["clean"], "margin": margin}


def test_a_band_from_what_is_certified_to_what_is_left():
    records = {("certificates", "mnist", run.name, seed): arrays(seed) for run in (SGD, DP) for seed in (0, 1)}
    privacy = pd.DataFrame({"run": [DP.name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=runs(*BOTH), arrays=records, privacy=privacy, note="small print")
    figure, data = show(given, Display(shows="certificates", runs=BOTH, title="Both sides"))
    (axes,) = figure.axes
    upper, lower = axes.get_lines()[:2]
    assert list(upper.get_xdata()) == list(lower.get_xdata()) == [0, 0.01, 0.02]
    assert list(upper.get_ydata()) == pytest.approx([0.89, 0.79, 0.69])
    assert list(lower.get_ydata()) == pytest.approx([0.89, 0.59, 0.19])
    band = axes.collections[0].get_paths()[0].vertices
    assert {round(y, 2) for x, y in band if x == 0.02} == {0.69, 0.19}
    one = data[(data["run"] == DP.name) & (data["side"] == "certified")]
    assert one["mean"].tolist() == pytest.approx([0.89, 0.59, 0.19]) and set(data["seeds"]) == {2}
    assert ((data["low"] < data["mean"]) & (data["mean"] < data["high"])).all()
    ends = [collection.get_segments() for collection in axes.collections[1:3]]  # bars point outwards
    assert [segment[1][1] for segment in ends[0]] == pytest.approx(
        data["high"][data["side"] == "attacked"][:3].tolist()
    )
    assert [segment[1][1] for segment in ends[1]] == pytest.approx(
        data["low"][data["side"] == "certified"][:3].tolist()
    )
    texts = " ".join(text.get_text() for text in figure.legends[0].get_texts()).replace("\n", " ")
    assert "certified" in texts and "left by PGD" in texts and "1.89" in texts
    assert figure.get_supxlabel() == "small print" and figure.get_suptitle() == "Both sides"
