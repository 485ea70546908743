"""Quantities of records made by hand: the values are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dprobust.quantity import Model, at, check_runs
from dprobust.registry import Registry
from dprobust.runs import Run
from dprobust.statistics import Sample, estimate, smallest

REGISTRY = Registry()
LABEL = np.array([0, 1, 2, 3])


def run(name="sgd", **training):
    if not training:
        return Run(name=name, base=name, algorithm="sgd")
    settings = {"epochs": 1, "batch_size": 1, "lr": 0.1, "sampling": "poisson"} | training
    return Run(name=name, base=name, algorithm="dpsgd", training=settings)


def model(metric, *seeds, name="sgd", **training):
    arrays = [{"index": np.arange(4), "label": LABEL} | seed for seed in seeds]
    return Model(run(name, **training), {metric: arrays})


def value(name, models, **settings):
    """The estimate of a quantity."""
    module = REGISTRY.quantity(name)
    made = module.sample(module.Quantity(name=name, **settings), models)
    if isinstance(made, float):
        return made
    found = estimate(made) if isinstance(made, Sample) else smallest(made)
    return found.value


def right(*flags):
    """Classes of four images, right where the flag is 1."""
    return np.where(np.array(flags) == 1, LABEL, (LABEL + 1) % 4).astype(np.uint8)


def test_accuracy():
    logits = [np.eye(4)[right(*flags)] for flags in ((1, 1, 1, 0), (1, 1, 1, 1), (0, 0, 1, 0), (1, 0, 1, 0))]
    first, second = (model("clean", {"logits": a}, {"logits": b}) for a, b in (logits[:2], logits[2:]))
    assert value("accuracy", [first, second]) == pytest.approx(87.5 - 37.5)
    assert value("accuracy", [first], compare="level") == pytest.approx(87.5)


def fgsm(*grid):
    """Of each loss the flags at eps 0, 0.1 and 0.3."""
    predicted = np.stack([[right(*flags) for flags in loss] for loss in grid])
    return {"loss": np.array(["ce", "margin"])[: len(grid)], "eps": np.array([0.0, 0.1, 0.3]), "predicted": predicted}


CE = [(1, 1, 1, 1), (1, 1, 1, 0), (1, 0, 0, 0)]
MARGIN = [(1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 0, 0)]
WEAK = [(1, 1, 1, 0), (1, 0, 0, 0), (1, 0, 0, 0)]


def test_fgsm_gap_drop_worst_case_and_plateau():
    models = [model("fgsm", fgsm(CE, MARGIN)), model("fgsm", fgsm(WEAK, WEAK))]
    assert value("fgsm", models, eps=0.1) == pytest.approx(75 - 25)
    assert value("fgsm", models, eps=0.1, loss="worst") == pytest.approx(50 - 25)
    assert value("fgsm", models, eps=0.1, of="drop", compare="excess") == pytest.approx((75 - 25) - (100 - 75))
    # gap 50 at 0.1 and 0 at 0.3, clean gap 25
    assert value("fgsm_smallest", models, upto=0.3) == pytest.approx(-25)
    assert value("fgsm_smallest", models, upto=0.1) == pytest.approx(25)
    assert value("fgsm_plateau", models[:1], start=0.1, end=0.3, compare="level") == pytest.approx(50)


def test_nothing_is_interpolated():
    with pytest.raises(ValueError, match="not among"):
        value("fgsm", [model("fgsm", fgsm(CE))] * 2, eps=0.2)
    assert at(np.array([0.1, 0.1 + 0.2]), 0.3) == 1


def test_trend_is_the_slope_per_doubling():
    models = [
        model("fgsm", fgsm([flags] * 3), name=f"c{clip}", clip=clip, sigma=1.0)
        for clip, flags in ((1.0, (1, 1, 1, 1)), (2.0, (1, 1, 1, 0)), (8.0, (1, 0, 0, 0)))
    ]
    found = value("fgsm", models, eps=0.1, compare="trend", along="clip")
    assert found == pytest.approx(np.polyfit([0, 1, 3], [100, 75, 25], 1)[0])


def test_pgd_and_ladder():
    predicted = np.array([[[right(1, 1, 1, 0), right(1, 0, 0, 0)]]])
    record = {"loss": np.array(["ce"]), "eps": np.array([0.1]), "steps": np.array([30, 40])}
    models = [
        model("pgd", record | {"predicted": predicted, "clean": right(1, 1, 1, 1)}),
        model("pgd", record | {"predicted": predicted[:, :, ::-1], "clean": right(1, 1, 1, 0)}),
    ]
    assert value("pgd", models, eps=0.1) == pytest.approx(25 - 75)
    assert value("pgd", models, eps=0.1, of="drop", compare="excess") == pytest.approx(0 - 75)
    ladders = [
        model("ladder", {"eps": np.array([0.1]), "broken_by": np.array([b], dtype=np.int8)})
        for b in ((-1, -1, 2, 0), (-1, 1, 3, 0))
    ]
    assert value("ladder", ladders, eps=0.1) == pytest.approx(50 - 25)
    assert value("ladder", ladders, eps=0.1, of="drop", compare="excess") == pytest.approx(50 - 25)


def test_steps_count_images_right_at_first():
    axes = {"loss": np.array(["ce"]), "eps": np.array([0.3]), "alpha": np.array([0.01])}
    models = [
        model("pgd_iterations", axes | {"first": np.array([[[first]]], dtype=np.uint8)})
        for first in ((10, 20, 41, 0), (0, 4, 6, 5))
    ]
    assert value("steps", models, eps=0.3, alpha=0.01) == pytest.approx(20 - 5)


def test_distances():
    first = {
        "norm": np.array(["l2", "linf"]),
        "distance": np.array([[1, 2, 3, 4], [0.1, 0.2, 0.3, np.inf]], dtype=np.float32),
        "correct": np.array([True, True, True, False]),
        "deepfool_index": np.array([1, 3]),
        "deepfool_distance": np.array([[2, 0], [0.4, 0]], dtype=np.float32),
    }
    second = first | {"distance": first["distance"] / 2, "deepfool_distance": first["deepfool_distance"] / 4}
    models = [model("distances", first), model("distances", second)]
    assert value("distance", models, norm="l2", compare="ratio") == pytest.approx(0.5)
    assert value("distance", models[:1], norm="l2", compare="level") == pytest.approx(2.5)
    assert value("distance", models[:1], norm="linf", compare="level") == pytest.approx(0.2)  # finite ones
    assert value("distance", models[:1], norm="l2", of="correct", compare="level") == pytest.approx(2.0)
    assert value("distance", models[:1], norm="linf", statistic="median", compare="level") == pytest.approx(0.25)
    asked = {"norm": "linf", "by": "deepfool", "of": "correct", "statistic": "median"}
    assert value("distance", models[:1], **asked, compare="level") == pytest.approx(0.4)


def test_curvature():
    models = [
        model(
            "curvature", {"eigenvalues": np.array([[1, 2, 3, 6], [0, 0, 0, 0]]) * f, "confidence_free": np.full(4, f)}
        )
        for f in (1.0, 5.0)
    ]
    assert value("curvature", models) == pytest.approx(5)
    assert value("curvature", models, of="confidence_free", statistic="median") == pytest.approx(5)
    assert value("curvature", models[:1], compare="level") == pytest.approx(3)


def test_corruptions():
    names = np.array(["identity", "fog", "snow", "zoom"])
    models = [
        model("corruptions", {"corruption": names, "predicted": np.stack([right(*flags) for flags in grid])})
        for grid in (
            [(1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 0, 0), (1, 0, 0, 0)],
            [(1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)],
        )
    ]
    assert value("corruptions", models) == pytest.approx((100 + 25 + 0) / 3)
    assert value("corruptions", models, corruptions=["fog", "snow"]) == pytest.approx((100 + 25) / 2)
    assert value("corruptions_largest", models, corruptions=["fog"]) == pytest.approx(100 - 25)
    assert value("corruptions_largest", models, corruptions=["fog", "zoom"]) == pytest.approx(0 - 25)


def test_epsilon():
    rows = [
        {"delta": 1e-6, "adjacency": "add or remove one", "epsilon": 2.0},
        {"delta": 1e-6, "adjacency": "add or remove one", "epsilon": 1.9},
        {"delta": 1e-6, "adjacency": "replace one", "epsilon": 3.5},
        {"delta": 1e-5, "adjacency": "add or remove one", "epsilon": 1.0},
    ]
    models = [Model(run(), privacy=pd.DataFrame(rows))]
    assert value("epsilon", models, delta=1e-6) == 1.9
    assert value("epsilon", models, delta=1e-6, neighbours="replace one") == 3.5
    with pytest.raises(ValueError, match="no epsilon"):
        value("epsilon", models, delta=1e-7)


def test_a_flat_boundary_has_no_bend():
    offset = np.linspace(-4, 4, 9)
    flat = np.broadcast_to(np.where(offset < 1, 0, 1)[:, None], (9, 9))
    kinked = flat.copy()
    kinked[5, 4] = 0  # at (1, 0): one point of the 7 x 7 within 3
    for plane, expected in ((flat, 0.0), (kinked, 100 / 49)):
        record = {"offset": offset, "plane": plane[None], "predicted": np.array([0]), "distance": np.array([1.0])}
        found = value("bend", [model("cross_sections", record)], compare="level", within=3.0)
        assert found == pytest.approx(expected)


def test_runs_that_cannot_be_compared():
    accuracy = REGISTRY.quantity("accuracy").Quantity
    sweep = [run(f"c{clip}", clip=clip, sigma=1.0) for clip in (1.0, 2.0)]
    check_runs(accuracy(name="accuracy"), sweep)
    check_runs(accuracy(name="accuracy", compare="trend", along="clip"), sweep)
    for settings, runs, message in (
        ({}, sweep[:1], "gap is of 2 run"),
        ({"compare": "level"}, sweep, "level is of 1 run"),
        ({"compare": "trend"}, sweep, "a trend needs sigma or clip"),
        ({"compare": "trend", "along": "sigma"}, sweep, "two or more that differ"),
        ({"compare": "trend", "along": "clip"}, [run(), *sweep], "above 0"),
    ):
        with pytest.raises(Exception, match=message):
            check_runs(accuracy(name="accuracy", **settings), runs)


def test_every_quantity_is_tried_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'value("{name}"' in text for name in REGISTRY.quantities)
