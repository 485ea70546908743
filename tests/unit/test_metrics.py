"""Every metric on a small smooth network of three classes, on images of two shapes, and on TorchScript."""

import json
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT
from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from torch import nn

from dprobust.attacks import fgsm, pgd
from dprobust.distances import boundary_distances, deepfool
from dprobust.errors import UserError
from dprobust.inference import predict
from dprobust.measuring import Images, Measured
from dprobust.seeds import generator
from dprobust.settings import Facts

METRICS = ("clean", "fgsm", "pgd", "pgd_iterations", "cross_sections", "corruptions", "distances", "curvature")
SMALL = {
    "clean": {},
    "fgsm": {"eps": [0.0, 0.01, 0.1]},
    "pgd": {"eps": [0.005, 0.01, 0.1], "steps": [3, 5], "alpha": 0.005, "keep_images": 4},
    "pgd_iterations": {"eps": [0.01, 0.1], "steps": 6, "alphas": [0.002, 0.05], "keep_images": 3},
    "cross_sections": {"resolution": 7, "half_width": 2.0},
    "corruptions": {"sets": "sets.npz"},
    "distances": {"deepfool_images": 5},
    "curvature": {"eigenvalues": 5, "h": [0.5]},
}
N, PLACES = 12, torch.arange(12) * 3 + 2
"""Images measured, and their places in a test set of 40."""


def part(metric):
    return SimpleNamespace(
        settings=import_module(f"dprobust.metrics.{metric}.settings"),
        measure=import_module(f"dprobust.metrics.{metric}.measure").measure,
    )


def net(shape, classes=3):
    """Smooth, with average pooling; the margins are small, so that attacks succeed on some images only."""
    torch.manual_seed(0)
    channels, height, width = shape
    features = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten())
    size = features(torch.zeros(1, *shape)).shape[1]
    model = nn.Sequential(*features, nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, classes)).eval()
    with torch.no_grad():
        model[-1].weight *= 8
        centre = torch.rand(500, *shape, generator=torch.Generator().manual_seed(3))
        model[-1].bias -= model(centre).mean(0)
    return model


def whole_test_set(shape):
    return torch.rand(40, *shape, generator=torch.Generator().manual_seed(1))


def given(model, shape, tmp_path, whole=whole_test_set):
    """Twelve images of a test set of forty, every fourth with another label than the network's."""
    everything = whole(shape)
    x = everything[PLACES]
    y = predict(model, x)
    y[::4] = (y[::4] + 1) % 3
    pixels = (everything * 255).round().byte().numpy()
    np.savez(tmp_path / "sets.npz", dark=pixels // 2, noise=pixels ^ 31)
    (tmp_path / "sets.json").write_text(json.dumps({"dark": "made by a test"}))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    about = {"dataset": "own", "run": "sgd", "seed": "0"}
    return Images(x, y, PLACES, order, about, {"sets": tmp_path / "sets.npz"})


def measured(metric, model, images, **settings):
    of = part(metric)
    return of.measure(model, images, of.settings.Metric(**SMALL[metric] | settings))


def rows(result):
    return pd.DataFrame(result.rows)


def value(table, **where):
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return table["value"].item()


SHAPES = [(1, 8, 8), (3, 12, 12)]


@pytest.fixture(params=SHAPES, ids=str)
def case(request, tmp_path):
    model = net(request.param)
    return model, given(model, request.param, tmp_path)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_measures_any_network_and_keeps_every_image(metric, case):
    model, images = case
    if metric == "cross_sections":
        images = Images(images.x[:2], images.y[:2], images.index[:2], torch.tensor([1, 0]), images.about)
    result = measured(metric, model, images)
    table = rows(result)
    assert len(table) and not table.columns.duplicated().any()
    if metric not in ("distances", "clean", "corruptions"):
        assert table["value"].notna().all()
    # Nothing that an .npz would hold as a pickle.
    for name, array in result.arrays.items():
        assert isinstance(array, np.ndarray) and array.dtype.kind in "biufU", name
        assert name not in ("index", "label")
    # The docstring names all that is kept.
    told = import_module(f"dprobust.metrics.{metric}.measure").measure.__doc__
    assert all(name in told for name in result.arrays)


@pytest.mark.parametrize("metric", METRICS)
def test_torchscript_measures_as_its_network_does(metric, tmp_path):
    shape = SHAPES[0]
    model = net(shape)
    images = given(model, shape, tmp_path)
    if metric == "cross_sections":
        images = Images(images.x[:2], images.y[:2], images.index[:2], torch.tensor([1, 0]), images.about)
    frozen = torch.jit.freeze(torch.jit.script(model))
    assert not list(frozen.parameters())
    if metric == "curvature":
        with pytest.raises(UserError, match="computed in float64, which the network does not take"):
            measured(metric, frozen, images)
        frozen = torch.jit.script(model)
    expected, found = rows(measured(metric, model, images)), rows(measured(metric, frozen, images))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_tiny_images_and_two_classes(metric, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval()
    x = torch.rand(5, 1, 1, 2)
    np.savez(tmp_path / "sets.npz", a=(x * 255).byte().numpy())
    images = Images(
        x,
        torch.tensor([0, 1, 0, 1, 1]),
        torch.arange(5),
        torch.arange(5),
        {"dataset": "own", "run": "sgd", "seed": "0"},
        {"sets": tmp_path / "sets.npz"},
    )
    settings = {"eigenvalues": 2} if metric == "curvature" else {}
    assert rows(measured(metric, model, images, **settings)).notna().any(axis=None)


def test_clean(case):
    model, images = case
    result = measured("clean", model, images)
    table = rows(result)
    with torch.no_grad():
        logits = model(images.x)
    assert result.arrays["logits"].dtype == np.float32
    np.testing.assert_allclose(result.arrays["logits"], logits, rtol=1e-5, atol=1e-6)
    assert value(table, metric="accuracy") == 0.75
    assert value(table, metric="cross_entropy") == pytest.approx(nn.functional.cross_entropy(logits, images.y).item())
    assert value(table, metric="confidence") == pytest.approx(logits.softmax(1).amax(1).mean().item())
    assert value(table, metric="p_true_is_1") == 0
    sure = nn.Sequential(model, Scale(1e4))
    found = value(rows(measured("clean", sure, images)), metric="p_true_is_1")
    assert found == 0.75 and np.isfinite(value(rows(measured("clean", sure, images)), metric="cross_entropy"))


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_fgsm_and_the_worst_of_its_losses(case):
    model, images = case
    result = measured("fgsm", model, images)
    table, arrays = rows(result), result.arrays
    losses, grid = ["ce", "ce_stable", "margin"], [0.0, 0.01, 0.1]
    assert arrays["loss"].tolist() == losses and arrays["eps"].tolist() == grid
    assert arrays["predicted"].shape == (3, 3, N) and arrays["predicted"].dtype == np.uint8
    right = arrays["predicted"] == images.y.numpy()
    for i, loss in enumerate(losses):
        for j, eps in enumerate(grid):
            adversarial = fgsm(model, images.x, images.y, eps, loss)
            np.testing.assert_array_equal(arrays["predicted"][i, j], predict(model, adversarial))
            assert value(table, metric="accuracy", loss=loss, eps=eps) == right[i, j].mean()
    for j, eps in enumerate(grid):
        assert value(table, metric="accuracy", loss="worst", eps=eps) == right[:, j].all(0).mean()
    assert (right[:, 1].all(0).mean() > 0) and right[:, 2].all(0).mean() < 0.75
    assert list(table.columns) == ["metric", "loss", "eps", "n", "value"]
    one = rows(measured("fgsm", model, images, losses=["margin"]))
    assert set(one["loss"]) == {"margin"} and (one["n"] == N).all()


def test_worst_is_image_by_image_and_not_the_lower_mean():
    # Each loss fools another image: each mean is 1/2, and no image withstands both.
    measure = import_module("dprobust.metrics.fgsm.measure")
    correct = {"ce": torch.tensor([[True], [False]]), "margin": torch.tensor([[False], [True]])}
    curves = {
        loss: SimpleNamespace(
            correct=right,
            predicted=right.byte(),
            gradient_norm=torch.ones(2),
            saturated=torch.zeros(2, dtype=torch.bool),
            zero_gradient=torch.zeros(2, dtype=torch.bool),
        )
        for loss, right in correct.items()
    }
    images = Images(torch.zeros(2, 1, 1, 1), torch.ones(2, dtype=torch.int64), torch.arange(2), torch.arange(2))
    settings = part("fgsm").settings.Metric(eps=[0.1], losses=["ce", "margin"])
    original, measure.fgsm_curve = measure.fgsm_curve, lambda model, x, y, eps, loss: curves[loss]
    try:
        table = rows(measure.measure(None, images, settings))
    finally:
        measure.fgsm_curve = original
    found = {loss: value(table, metric="accuracy", loss=loss) for loss in ("ce", "margin", "worst")}
    assert found == {"ce": 0.5, "margin": 0.5, "worst": 0.0}


def test_pgd(case):
    model, images = case
    result = measured("pgd", model, images)
    table, arrays = rows(result), result.arrays
    columns = ["metric", "loss", "eps", "alpha", "steps", "random_start", "restarts", "n", "value"]
    assert list(table.columns) == columns and len(table) == 3 * (1 + 3 * 2)
    assert set(table["random_start"]) == {False} and set(table["restarts"]) == {1}
    assert value(table, loss="worst", steps=0) == value(table, loss="ce", steps=0) == 0.75
    right = arrays["predicted"] == images.y.numpy()
    assert right.shape == (2, 3, 2, N)
    kept = images.order[:4].sort().values
    assert arrays["kept"].tolist() == PLACES[kept].tolist()
    assert arrays["images"].shape == (2, 3, 4, *images.x.shape[1:]) and arrays["images"].dtype == np.uint16
    for i, loss in enumerate(["ce", "margin"]):
        for j, eps in enumerate([0.005, 0.01, 0.1]):
            for k, steps in enumerate([3, 5]):
                adversarial = pgd(model, images.x, images.y, eps, 0.005, steps, loss)
                np.testing.assert_array_equal(arrays["predicted"][i, j, k], predict(model, adversarial))
                assert value(table, loss=loss, eps=eps, steps=steps) == right[i, j, k].mean()
                assert value(table, loss="worst", eps=eps, steps=steps) == right[:, j, k].all(0).mean()
            pixels = arrays["images"][i, j] / 65535
            np.testing.assert_allclose(pixels, adversarial[kept], rtol=0, atol=0.5 / 65535 + 1e-6)
            # The first wrong step is 0 where the image is wrong at once, and at most the last where it ends up wrong.
            first = arrays["first"][i, j]
            assert ((first == 0) == (arrays["clean"] != images.y.numpy())).all()
            assert (first[~right[i, j, 1]] <= 5).all() and (first <= 6).all()
    assert "images" not in measured("pgd", model, images, keep_images=0).arrays


def test_pgd_restarts_repeat_and_only_harm(case):
    model, images = case
    settings = {"eps": [0.02], "losses": ["ce"], "random_start": True}
    one, three, again = (measured("pgd", model, images, **settings, restarts=r) for r in (1, 3, 3))
    for a, b in zip(three.arrays.values(), again.arrays.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    wrong = one.arrays["predicted"] != images.y.numpy()
    assert (three.arrays["predicted"] != images.y.numpy())[wrong].all()
    assert (three.arrays["first"] <= one.arrays["first"]).all()
    assert set(rows(three)["restarts"]) == {3} and set(rows(three)["random_start"]) == {True}
    stream = generator("own", "sgd", "0", "pgd", "ce", 0.02)
    expected = pgd(model, images.x, images.y, 0.02, 0.005, 5, "ce", True, stream)
    np.testing.assert_array_equal(one.arrays["predicted"][0, 0, 1], predict(model, expected))


def test_pgd_iterations(case):
    model, images = case
    result = measured("pgd_iterations", model, images)
    table, arrays = rows(result), result.arrays
    assert list(table.columns) == ["metric", "loss", "eps", "alpha", "iterations", "n", "value"]
    assert arrays["first"].shape == (2, 2, 2, N) and arrays["first"].dtype == np.uint8
    for i, loss in enumerate(arrays["loss"].tolist()):
        for j, eps in enumerate(arrays["eps"].tolist()):
            for k, alpha in enumerate(arrays["alpha"].tolist()):
                cell = table[(table["loss"] == loss) & (table["eps"] == eps) & (table["alpha"] == alpha)]
                first = arrays["first"][i, j, k]
                assert cell["value"].sum() == N and set(cell["n"]) == {N}
                assert value(cell, metric="wrong_from_the_start") == (first == 0).sum() == 3
                assert value(cell, metric="never_fooled") == (first == 7).sum()
                for step in range(1, 7):
                    assert value(cell, metric="fooled", iterations=step) == (first == step).sum()
                right = arrays["predicted"][i, j, k] == images.y.numpy()
                assert ((first == 7) == right).all()
    assert arrays["loss"].tolist() == ["ce", "ce_stable"]
    assert 0 < (arrays["first"] == 7).sum() < arrays["first"].size / 2
    long = measured("pgd_iterations", model, images, steps=255, eps=[0.0], alphas=[0.01], losses=["ce"])
    assert long.arrays["first"].dtype == np.int16 and long.arrays["first"].max() == 256


def test_pgd_iterations_in_the_worst_case_over_losses(case):
    model, images = case
    result = measured("pgd_iterations", model, images, losses=["ce", "margin"], alphas=[0.002, 0.004])
    table, first = rows(result), result.arrays["first"]
    assert (first.min(0) < first[0]).any()
    for j, eps in enumerate([0.01, 0.1]):
        for k, alpha in enumerate([0.002, 0.004]):
            cell = table[(table["loss"] == "worst") & (table["eps"] == eps) & (table["alpha"] == alpha)]
            np.testing.assert_array_equal(cell["value"], np.bincount(first[:, j, k].min(0), minlength=8))


def test_cross_sections_of_the_given_images(case):
    model, images = case
    some = Images(images.x[:3], images.y[:3], images.index[:3], torch.arange(3), images.about)
    result = measured("cross_sections", model, some)
    table, arrays = rows(result), result.arrays
    assert list(table.columns) == ["metric", "sample", "repeat", "value"]
    assert table["sample"].unique().tolist() == PLACES[:3].tolist()
    assert arrays["plane"].shape == (3, 7, 7)
    for i, sample in enumerate(PLACES[:3].tolist()):
        cells = table[(table["sample"] == sample)]

        def flat(metric, cells=cells):
            part = cells[cells["metric"] == metric]
            return np.repeat(part["value"], part["repeat"]).to_numpy()

        np.testing.assert_array_equal(flat("class"), arrays["plane"][i].ravel())
        np.testing.assert_array_equal(flat("pixel"), some.x[i].flatten())
        assert flat("label").tolist() == [some.y[i]] and flat("predicted").tolist() == [arrays["predicted"][i]]
        draw = torch.randn(some.x.shape[1:], generator=generator("own", "cross_section", sample)).flatten()
        normal, tangent = (torch.from_numpy(arrays[name][i]).flatten() for name in ("normal", "tangent"))
        expected = draw - (draw @ normal) * normal
        torch.testing.assert_close(tangent, expected / expected.norm())
        boundary = some.x[i] + flat("distance")[0] * normal.view(some.x.shape[1:])
        with torch.no_grad():
            logits = model(boundary[None].float())[0]
        own, other = logits[arrays["predicted"][i]], logits.topk(2).values
        assert (own - other.mean()).abs() < 1e-3 * logits.abs().max()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.raises(UserError, match=r"test image 2: DeepFool finds no decision boundary"):
        measured("cross_sections", model, some)


@pytest.mark.parametrize("layout", ["channels first", "channels last", "grey"])
def test_corruptions_selects_by_place_in_the_test_set(layout, tmp_path):
    shape = (1, 8, 8) if layout == "grey" else (3, 12, 12)
    model = net(shape)
    images = given(model, shape, tmp_path)
    with np.load(tmp_path / "sets.npz") as sets:
        arrays = {name: sets[name] for name in sets.files}
    stored = {
        "channels first": lambda a: a,
        "channels last": lambda a: a.transpose(0, 2, 3, 1),
        "grey": lambda a: a[:, 0],
    }[layout]
    np.savez(tmp_path / "sets.npz", **{name: stored(array) for name, array in arrays.items()})
    result = measured("corruptions", model, images)
    table = rows(result)
    assert list(table.columns) == ["metric", "corruption", "source", "n", "value"]
    assert table["corruption"].tolist() == result.arrays["corruption"].tolist() == ["identity", "dark", "noise"]
    assert table["source"].tolist() == ["own", "made by a test", "sets.npz"]
    assert value(table, corruption="identity") == 0.75
    for i, name in enumerate(["dark", "noise"], start=1):
        x = torch.from_numpy(arrays[name][PLACES]).float() / 255
        np.testing.assert_array_equal(result.arrays["predicted"][i], predict(model, x))
        assert value(table, corruption=name) == (predict(model, x) == images.y).double().mean().item()
    assert (result.arrays["predicted"][1] != result.arrays["predicted"][0]).any()


def test_corruptions_refuses_what_is_no_test_set(tmp_path):
    shape = (3, 12, 12)
    model = net(shape)
    images = given(model, shape, tmp_path)
    sets = tmp_path / "sets.npz"
    good = np.zeros((40, *shape), np.uint8)
    for change, message in [
        ({"a": good.astype(np.float32)}, r"sets.npz: a is float32 \(40, 3, 12, 12\), expected uint8 \(N, 3, 12, 12\)"),
        ({"a": good[:, 0]}, r"sets.npz: a is uint8 \(40, 12, 12\)"),
        ({"a": good[:35]}, "sets.npz: a has 35 images, the test set has 36 or more"),
        ({"a": good, "identity": good}, "sets.npz: found a set named identity"),
        ({}, "sets.npz: found no set"),
    ]:
        np.savez(sets, **change)
        with pytest.raises(UserError, match=message) as error:
            measured("corruptions", model, images)
        assert "\n" not in str(error.value)
    np.savez(sets, a=good)
    whole = sets.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text", whole[:200] + b"\xff" * 300 + whole[500:]):
        sets.write_bytes(content)
        with pytest.raises(UserError, match="sets.npz: not a whole .npz of arrays"):
            measured("corruptions", model, images)
    with sets.open("wb") as file:
        np.save(file, good)
    with pytest.raises(UserError, match="sets.npz: not a whole .npz of arrays"):
        measured("corruptions", model, images)
    np.savez(sets, a=good)
    for text in ("{", "[1]", '{"a": 1}'):
        sets.with_suffix(".json").write_text(text)
        with pytest.raises(UserError, match="sets.json: .*mend it or take it away"):
            measured("corruptions", model, images)
    sets.with_suffix(".json").unlink()
    assert set(rows(measured("corruptions", model, images))["source"]) == {"own", "sets.npz"}


def test_distances(case):
    model, images = case
    result = measured("distances", model, images)
    table, arrays = rows(result), result.arrays
    assert table["index"].tolist() == PLACES.tolist()
    linear = boundary_distances(model, images.x, images.y)
    first = images.order[:5].sort().values
    assert arrays["deepfool_index"].tolist() == PLACES[first].tolist()
    for i, norm in enumerate(arrays["norm"].tolist()):
        outcome = deepfool(model, images.x[first], images.y[first], norm)
        np.testing.assert_array_equal(arrays["distance"][i], getattr(linear, norm))
        np.testing.assert_array_equal(table[f"{norm}_signed"].astype(np.float32), arrays["signed"][i])
        np.testing.assert_array_equal(arrays["deepfool_distance"][i], outcome.distance)
        np.testing.assert_array_equal(arrays["deepfool_class"][i], outcome.predicted)
        np.testing.assert_array_equal(arrays["deepfool_iterations"][i], outcome.iterations)
        assert (arrays["deepfool_landing"][i] >= arrays["deepfool_distance"][i]).all()
        column = table[f"deepfool_{norm}"].to_numpy()
        np.testing.assert_array_equal(column[first].astype(np.float32), outcome.distance)
        assert np.isnan(np.delete(column, first)).all()
    assert (arrays["nearest"] != images.y.numpy()).all()
    np.testing.assert_array_equal(arrays["predicted"], predict(model, images.x))
    assert arrays["infinite"].tolist() == arrays["deepfool_infinite"].tolist() == [0, 0]
    none = measured("distances", model, images, deepfool=False)
    assert rows(none)["deepfool_l2"].isna().all() and "deepfool_index" not in none.arrays
    every = rows(measured("distances", model, images, deepfool_images=None))
    assert every["deepfool_l2"].notna().all() and ((every["deepfool_l2"] == 0) == ~every["correct"]).all()


def test_infinite_distances_are_kept_and_counted(case):
    model, images = case
    with torch.no_grad():
        model[-1].weight.zero_()
    y = predict(model, images.x)
    images = Images(images.x, y, images.index, images.order, images.about)
    result = measured("distances", model, images)
    assert np.isinf(rows(result)["l2"]).all() and len(result.rows) == N
    assert result.arrays["infinite"].tolist() == [N, N] and result.arrays["deepfool_infinite"].tolist() == [5, 5]
    assert not result.arrays["deepfool_fooled"].any()


def test_curvature(case):
    model, images = case
    result = measured("curvature", model, images)
    table, arrays = rows(result), result.arrays
    assert arrays["eigenvalues"].shape == (5, N) and arrays["finite_difference"].shape == (1, N)
    eigenvalues = table[table["metric"] == "eigenvalue"]
    assert eigenvalues["rank"].tolist() == np.repeat([1, 2, 3, 4, 5], N).tolist()
    assert eigenvalues["index"].tolist() == PLACES.tolist() * 5
    np.testing.assert_array_equal(eigenvalues["value"], arrays["eigenvalues"].ravel())
    # Not piecewise linear: the whole Hessian, which has eigenvalues beyond the second (three classes) that are not 0.
    assert (np.abs(arrays["eigenvalues"][2:]) > 0).any()
    p = model.double()(images.x.double()).softmax(1).detach()
    model.float()
    np.testing.assert_allclose(arrays["p1"], p.amax(1))
    np.testing.assert_allclose(arrays["p2"], p.topk(2).values[:, 1])
    np.testing.assert_allclose(arrays["confidence_free"], arrays["eigenvalues"][0] / (arrays["p1"] * arrays["p2"]))
    assert arrays["correct"].sum() == 9
    with pytest.raises(UserError, match="eigenvalues: 500 asked for, an image has"):
        measured("curvature", model, images, eigenvalues=500)


def test_measured_holds_what_an_npz_can():
    result = Measured()
    result.keep("names", ["ce", "margin"])
    result.keep("eps", [0.1, 0.2])
    result.keep("classes", torch.tensor([1, 2], dtype=torch.uint8, requires_grad=False))
    assert [array.dtype.kind for array in result.arrays.values()] == ["U", "f", "u"]
    for name in ("index", "label", "eps"):
        with pytest.raises(ValueError, match=f"array {name} is there already"):
            result.keep(name, [1])
    with pytest.raises(ValueError, match="has type object"):
        result.keep("mixed", [{}])


@pytest.mark.parametrize(
    ("metric", "settings", "message"),
    [
        ("fgsm", {"eps": [0.1, 0.05]}, "ascending"),
        ("fgsm", {"eps": [float("nan")]}, "finite"),
        ("fgsm", {"losses": ["worst"]}, "'ce', 'ce_stable' or 'margin'"),
        ("pgd", {"restarts": 2}, "need random_start: true"),
        ("pgd", {"steps": [0]}, "greater than or equal to 1"),
        ("pgd", {"steps": [10**12]}, "less than or equal to 10000"),
        ("pgd_iterations", {"loss": "ce"}, "unknown key"),
        ("pgd_iterations", {"alphas": [0.01, 0.01]}, "listed twice"),
        ("cross_sections", {"resolution": 10**6}, "less than or equal to 2001"),
        ("cross_sections", {"samples": [0]}, "unknown key"),
        ("curvature", {"h": [0.0]}, "greater than 0"),
        ("corruptions", {"sets": ""}, "at least 1"),
        ("clean", {"images": 0}, "greater than or equal to 1"),
    ],
)
def test_bad_settings(metric, settings, message):
    with pytest.raises(ValidationError, match=message):
        part(metric).settings.Metric(**settings)


@pytest.mark.parametrize("metric", METRICS)
def test_settings_have_defaults_and_descriptions(metric):
    settings = part(metric).settings.Metric
    settings()
    assert settings.__doc__ and all(field.description for field in settings.model_fields.values())


def test_what_corruptions_needs():
    settings = part("corruptions").settings
    assert settings.needs(settings.Metric(source="zenodo"), "mnist") == {"sets": "data/mnist_c/zenodo.npz"}
    own = settings.Metric(sets="own/cifar-c.npz")
    assert settings.needs(own, "cifar10") == {"sets": "own/cifar-c.npz"}
    with pytest.raises(PydanticCustomError, match="dataset cifar10: the sets made here are MNIST's; name an .npz"):
        settings.needs(settings.Metric(), "cifar10")
    settings.check(own, Facts(shape=(3, 32, 32)))
    settings.check(settings.Metric(), Facts(shape=(1, 28, 28)))
    settings.check(settings.Metric(), Facts())
    with pytest.raises(PydanticCustomError, match=r"images of shape \(3, 32, 32\): the sets made here are MNIST's"):
        settings.check(settings.Metric(), Facts(shape=(3, 32, 32)))


def test_what_images_are_too_small_for():
    settings = part("curvature").settings
    settings.check(settings.Metric(eigenvalues=64), Facts(shape=(1, 8, 8)))
    with pytest.raises(PydanticCustomError, match="eigenvalues: 65 asked for, an image has 64 values"):
        settings.check(settings.Metric(eigenvalues=65), Facts(shape=(1, 8, 8)))
    settings = part("cross_sections").settings
    settings.check(settings.Metric(), Facts(shape=(1, 1, 2)))
    with pytest.raises(PydanticCustomError, match="images of one pixel have no plane"):
        settings.check(settings.Metric(), Facts(shape=(1, 1, 1)))


def test_settings_need_neither_torch_nor_matplotlib():
    names = [f"dprobust.metrics.{metric}.settings" for metric in METRICS]
    code = f"import sys, {', '.join(names)}; assert not {{'torch', 'matplotlib', 'numpy'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
