"""Runs: what entries stand for, in which order, under which names and labels, and which cannot be."""

import json
import math

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from dprobust.recipe import Dpsgd, Sgd, Stop, Training
from dprobust.runs import LONGEST, Entry, Run, RunsDisplay, WeightsEntry, expand, number

MODEL = {"name": "lenet", "hidden": [500], "normalize": {"mean": [0.1307], "std": [0.3081]}, "init": "default"}
ENTRIES = TypeAdapter(list[Entry])


def runs(*entries, sgd=None, dpsgd=None, delta=1e-6, **more):
    training = {"sgd": sgd or Sgd(), "dpsgd": dpsgd or Dpsgd()}
    return expand(ENTRIES.validate_python(list(entries)), training, MODEL, delta, **more)


def run(entry, **more):
    (found,) = runs(entry, **more)
    return found


def names(*entries, **more):
    return [found.name for found in runs(*entries, **more)]


def labels(*entries, **more):
    return [found.label() for found in runs(*entries, **more)]


# -- names ------------------------------------------------------------------------------------------------------------

PRIVATE = "dpsgd_sigma=1.3_clip=1.0"
NAMES = [
    ("sgd", "sgd"),
    ({"algorithm": "sgd"}, "sgd"),
    ({"sigma": 1.3, "clip": 1.0}, "dpsgd_sigma=1.3_clip=1.0"),
    ({"sigma": 1, "clip": 1}, "dpsgd_sigma=1.0_clip=1.0"),
    ({"sigma": 0.0, "clip": 10}, "dpsgd_sigma=0.0_clip=10.0"),
    ({"sigma": 1.3, "clip": 0.5, "noise": "sigma*clip"}, "dpsgd_sigma=1.3_clip=0.5"),
    ({"sigma": 1.3, "clip": 0.5, "noise": "sigma"}, "dpsgd_sigma=1.3_clip=0.5_noise=sigma"),
    ({"sigma": 1.3, "clip": 1.0, "noise": "sigma"}, "dpsgd_sigma=1.3_clip=1.0"),
    ({"sigma": 1.3, "clip": 0.5, "noise": "sigma", "lr": 0.1}, "dpsgd_sigma=1.3_clip=0.5_noise=sigma_lr=0.1"),
    ({"sigma": 1.3, "clip": 1.0, "lr": 0.05}, "dpsgd_sigma=1.3_clip=1.0"),
    ({"sigma": 1.3, "clip": 1.0, "sampling": "shuffle"}, "dpsgd_sigma=1.3_clip=1.0_sampling=shuffle"),
    ({"lr": 1e-05, "clip": 1.0, "sigma": 1.3}, "dpsgd_sigma=1.3_clip=1.0_lr=1e-05"),
    ({"epsilon": 3, "clip": 1.0}, "dpsgd_epsilon=3.0_clip=1.0"),
    ({"sigma": 1.3, "clip": 1.0, "engine": "ghost"}, "dpsgd_sigma=1.3_clip=1.0_engine=ghost"),
    ({"sigma": 1.3, "clip": 1.0, "temperature": 2}, "dpsgd_sigma=1.3_clip=1.0_temperature=2.0"),
    ({"algorithm": "sgd", "clip": 0.5}, "sgd_clip=0.5"),
    ({"algorithm": "sgd", "clip": 0.5, "engine": "fused"}, "sgd_clip=0.5"),
    ({"algorithm": "sgd", "sigma": 0.5}, "sgd_sigma=0.5"),
    ({"algorithm": "sgd", "sigma": 0.5, "noise": "sigma"}, "sgd_sigma=0.5"),
    ({"algorithm": "sgd", "sampling": "poisson"}, "sgd_sampling=poisson"),
    ({"algorithm": "sgd", "epochs": 10, "batch_size": 128}, "sgd_epochs=10_batch_size=128"),
    ({"algorithm": "sgd", "momentum": 0.9, "nesterov": True}, "sgd_momentum=0.9_nesterov=true"),
    ({"algorithm": "sgd", "augment": ["flip", "crop"]}, "sgd_augment=flip+crop"),
    ({"algorithm": "sgd", "augment": []}, "sgd"),
    ({"algorithm": "sgd", "schedule": "one_cycle"}, "sgd_schedule=one_cycle"),
    ({"algorithm": "sgd", "stop": {"accuracy": 0.965}}, "sgd_stop.accuracy=0.965"),
    (
        {"algorithm": "sgd", "stop": {"accuracy_of": "dpsgd_sigma=1_clip=1"}},
        "sgd_stop.accuracy_of=dpsgd_sigma-1_clip-1",
    ),
    (
        {"algorithm": "sgd", "stop": {"accuracy": 0.9, "holdout": 100, "every": 25}},
        "sgd_stop.accuracy=0.9_stop.holdout=100",
    ),
    ({"algorithm": "sgd", "init": "xavier"}, "sgd_init=xavier"),
    ({"algorithm": "sgd", "init": "default"}, "sgd"),
    ({"algorithm": "sgd", "model": {"init": "xavier"}}, "sgd_init=xavier"),
    ({"algorithm": "sgd", "model": {"hidden": [50, 50]}}, "sgd_model.hidden=50+50"),
    ({"algorithm": "sgd", "model": {"hidden": []}}, "sgd_model.hidden=none"),
    ({"algorithm": "sgd", "model": {"hidden": [500]}}, "sgd"),
    ({"algorithm": "sgd", "model": {"normalize": None}}, "sgd_model.normalize=none"),
    (
        {"algorithm": "sgd", "model": {"normalize": {"mean": [0.5], "std": [0.25]}}},
        "sgd_model.normalize.mean=0.5_model.normalize.std=0.25",
    ),
    ({"algorithm": "sgd", "model": {"path": "../a b/{c}"}}, "sgd_model.path=..-a-b--c-"),
    ({"algorithm": "sgd", "temperature": 1}, "sgd"),
    (
        {"sigma": 1.3, "clip": 1.0, "temperature": {"confidence_of": "sgd"}},
        "dpsgd_sigma=1.3_clip=1.0_temperature.confidence_of=sgd",
    ),
    (
        {"algorithm": "sgd", "temperature": {"confidence_of": "dpsgd_sigma=1.3_clip=1.0"}},
        "sgd_temperature.confidence_of=dpsgd_sigma-1.3_clip-1.0",
    ),
    (
        {"weights": "theirs.pt", "name": "resnet18", "temperature": {"confidence_of": "sgd"}},
        "weights=resnet18_temperature.confidence_of=sgd",
    ),
    ({"weights": "theirs.pt", "name": "resnet18"}, "weights=resnet18"),
    ({"weights": "theirs.pt", "name": "resnet18", "temperature": 0.5}, "weights=resnet18_temperature=0.5"),
]


@pytest.mark.parametrize(("entry", "name"), NAMES, ids=str)
def test_a_name_says_what_differs_from_the_datasets_settings(entry, name):
    assert run(entry).name == name


def test_what_the_dataset_has_is_not_told():
    dpsgd = Dpsgd(lr=0.2, augment=["flip"], engine="hooks")
    entry = {"sigma": 1.3, "clip": 1.0, "lr": 0.2, "augment": ["flip"], "engine": "hooks"}
    assert run(entry, dpsgd=dpsgd).name == "dpsgd_sigma=1.3_clip=1.0"
    other = {"sigma": 1.3, "clip": 1.0, "lr": 0.05, "augment": []}
    assert run(other, dpsgd=dpsgd).name == "dpsgd_sigma=1.3_clip=1.0_lr=0.05_augment=none"


def test_equal_names_are_equal_trainings():
    """Every pair of NAMES of one name; and they are one run to sets and dicts."""
    found = {}
    for entry, name in NAMES:
        one = run(entry)
        other = found.setdefault(name, one)
        assert one == other and hash(one) == hash(other)
        assert (one.training, one.model, one.temperature) == (other.training, other.model, other.temperature)
    assert len({run(entry) for entry, _ in NAMES}) == len(found) < len(NAMES)
    assert run("sgd") != "sgd"


@pytest.mark.parametrize(("value", "text"), [(1, "1.0"), (1.0, "1.0"), (0.1, "0.1"), (1e-6, "1e-06"), (1e22, "1e+22")])
def test_number(value, text):
    assert number(value) == text


# -- what a run is trained by -----------------------------------------------------------------------------------------


def test_a_run_inherits_the_datasets_settings():
    sgd, dpsgd = Sgd(epochs=7, lr=0.3, momentum=0.5), Dpsgd(epochs=9, batch_size=64, engine="ghost")
    one, other, clipped = runs(
        "sgd", {"sigma": 1.3, "clip": 0.5}, {"algorithm": "sgd", "clip": 2.0}, sgd=sgd, dpsgd=dpsgd
    )
    assert one.training == Training(**sgd.plain())
    assert other.training == Training(**dpsgd.plain(), sigma=1.3, clip=0.5)
    assert clipped.training == Training(**sgd.plain(), clip=2.0)


@pytest.mark.parametrize(
    ("entry", "private", "std", "multiplier"),
    [
        ("sgd", False, 0.0, None),
        ({"sigma": 1.3, "clip": 0.5}, True, 0.65, 1.3),
        ({"sigma": 1.3, "clip": 0.5, "noise": "sigma"}, True, 1.3, 2.6),
        ({"algorithm": "sgd", "clip": 0.5}, False, 0.0, 0.0),
        ({"algorithm": "sgd", "sigma": 1.3}, False, 1.3, None),
    ],
)
def test_noise(entry, private, std, multiplier):
    found = run(entry)
    assert found.private is private
    assert (found.training.noise_std, found.training.noise_multiplier) == (std, multiplier)
    assert (found.sigma, found.clip) == (found.training.sigma, found.training.clip)
    assert found.noise == found.training.noise


def test_an_epsilon_is_asked_for_at_the_studys_delta():
    found = run({"epsilon": 2.0, "clip": 0.5}, delta=1e-7)
    assert (found.training.epsilon, found.training.delta, found.training.sigma) == (2.0, 1e-7, None)
    assert found.own == {"epsilon": 2.0, "clip": 0.5} and found.sigma is None


def test_the_network_is_the_datasets_but_for_what_is_changed():
    assert run("sgd").model == MODEL
    assert run({"algorithm": "sgd", "init": "xavier", "model": {"hidden": [50]}}).model == MODEL | {
        "init": "xavier",
        "hidden": [50],
    }


def test_changes_go_through_the_check_of_networks():
    def merge(settings, changes):
        if "width" in changes:
            raise PydanticCustomError("setting", "width: unknown")
        return {**settings, **changes, "checked": True}

    with pytest.raises(PydanticCustomError, match="width: unknown"):
        runs({"algorithm": "sgd", "model": {"width": 3}}, merge=merge)
    found = run({"weights": "a.pt", "name": "a", "model": {"normalize": None}}, merge=merge)
    assert found.model == MODEL | {"normalize": None, "checked": True}


def test_a_temperature_is_made_of_anothers_model():
    plain, hot = runs({"algorithm": "sgd", "lr": 0.1, "temperature": [1.0, 4.0]})
    assert (plain.name, plain.base, plain.temperature) == ("sgd_lr=0.1", "sgd_lr=0.1", 1.0)
    assert (hot.name, hot.base, hot.temperature) == ("sgd_lr=0.1_temperature=4.0", "sgd_lr=0.1", 4.0)
    assert hot.training == plain.training and hot.own == {"lr": 0.1, "temperature": 4.0}


def test_a_temperature_for_anothers_confidence_is_made_of_ones_own_model():
    private, matched = runs(
        {"sigma": 1.3, "clip": 1.0}, {"algorithm": "sgd", "temperature": {"confidence_of": PRIVATE}}
    )
    assert (private.name, private.scaled) == (PRIVATE, False)
    assert (matched.base, matched.confidence_of, matched.temperature) == ("sgd", PRIVATE, 1.0) and matched.scaled
    assert matched.label() == "SGD, as confident as (DP-SGD σ = 1.3, C = 1)"  # the other's label beside it
    alone, given = runs(
        {"algorithm": "sgd", "temperature": {"confidence_of": "other"}},
        {"weights": "w.pt", "name": "w", "temperature": {"confidence_of": "other"}},
    )
    assert alone.setting == "as confident as other" and given.label() == "w, as confident as other"
    assert Run(**matched.plain()) == matched and Run(**matched.brief()).confidence_of == PRIVATE
    with pytest.raises(PydanticCustomError, match=r"a name of \d+ characters is too long for paths"):
        run({"algorithm": "sgd", "temperature": {"confidence_of": "x" * 220}})


def test_given_weights():
    found = run({"weights": "a/b.pt", "name": "b", "privacy": {"epsilon": 3.0, "delta": 1e-5}, "temperature": 2.0})
    assert (found.algorithm, found.weights, found.base) == ("weights", "a/b.pt", "weights=b")
    assert found.training is None and found.sigma is None and found.clip is None and found.noise == "sigma*clip"
    assert found.private and found.privacy.epsilon == 3.0 and found.setting == ""
    assert run({"weights": "b.pt", "name": "b"}).private  # not known
    assert not run({"weights": "b.pt", "name": "b", "privacy": "none"}).private


# -- sweeps and order -------------------------------------------------------------------------------------------------


def test_lists_are_a_grid_in_the_order_of_the_settings():
    """Whatever the order of keys: sigma varies slower than clip, and values stay in the order they are listed in."""
    expected = [f"dpsgd_sigma={sigma}_clip={clip}" for sigma in ("2.0", "1.3") for clip in ("0.5", "1.0", "0.25")]
    assert names({"sigma": [2.0, 1.3], "clip": [0.5, 1.0, 0.25]}) == expected
    assert names({"clip": [0.5, 1.0, 0.25], "sigma": [2.0, 1.3]}) == expected
    assert names({"sigma": 1.3, "clip": [1.0, 2.0], "lr": [0.1, 0.2]}) == [
        f"dpsgd_sigma=1.3_clip={clip}_lr={lr}" for lr in ("0.1", "0.2") for clip in ("1.0", "2.0")
    ]


def test_entries_keep_their_order():
    entries = ({"sigma": 2.0, "clip": 1.0}, "sgd", {"weights": "w.pt", "name": "w"}, {"sigma": 1.3, "clip": 1.0})
    found = ["dpsgd_sigma=2.0_clip=1.0", "sgd", "weights=w", "dpsgd_sigma=1.3_clip=1.0"]
    assert names(*entries) == found
    assert names(*reversed(entries)) == found[::-1]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"algorithm": "sgd", "lr": [0.1, 0.05]}, ["sgd_lr=0.1", "sgd"]),
        ({"algorithm": "sgd", "clip": [None, 1.0]}, ["sgd", "sgd_clip=1.0"]),
        ({"algorithm": "sgd", "epochs": [1, 2]}, ["sgd_epochs=1", "sgd_epochs=2"]),
        ({"algorithm": "sgd", "nesterov": [True, False]}, ["sgd_nesterov=true", "sgd"]),
        (
            {"algorithm": "sgd", "augment": [[], ["flip"], ["flip", "crop"]]},
            ["sgd", "sgd_augment=flip", "sgd_augment=flip+crop"],
        ),
        (
            {"algorithm": "sgd", "stop": [{"accuracy": 0.9}, {"accuracy": 0.95}]},
            ["sgd_stop.accuracy=0.9", "sgd_stop.accuracy=0.95"],
        ),
        ({"algorithm": "sgd", "init": ["default", "xavier"]}, ["sgd", "sgd_init=xavier"]),
        ({"algorithm": "sgd", "temperature": [2.0, 1.0]}, ["sgd_temperature=2.0", "sgd"]),
        ({"algorithm": "sgd", "lr": None}, ["sgd"]),
        ({"epsilon": [1.0, 8.0], "clip": 1.0}, ["dpsgd_epsilon=1.0_clip=1.0", "dpsgd_epsilon=8.0_clip=1.0"]),
        (
            {"sigma": 1.3, "clip": 2.0, "noise": ["sigma", "sigma*clip"]},
            ["dpsgd_sigma=1.3_clip=2.0_noise=sigma", "dpsgd_sigma=1.3_clip=2.0"],
        ),
        ({"weights": "w.pt", "name": "w", "temperature": [1.0, 2.0]}, ["weights=w", "weights=w_temperature=2.0"]),
    ],
    ids=str,
)
def test_every_setting_can_be_a_list(entry, found):
    assert names(entry) == found


def test_every_setting_of_a_training_can_be_asked_for():
    asked = {name for name, _ in RunsDisplay.model_fields.items()}
    assert asked == {"shows", "title", "target", "dataset", "runs"}
    entry = ENTRIES.validate_python([{"sigma": 1.0, "clip": 1.0}])[0]
    fields = set(type(entry).model_fields)
    assert Training.model_fields.keys() - fields == {"delta", "precision"}
    assert fields - Training.model_fields.keys() == {"algorithm", "init", "model", "temperature", "pair", "label"}
    assert all(type(entry).model_fields[name].description for name in fields)


def test_pairs():
    """Constant C x lr: the scale law's controls."""
    assert names({"sigma": 1.3, "clip": [0.5, 1.0, 2.0], "lr": [0.1, 0.05, 0.025], "pair": True}) == [
        "dpsgd_sigma=1.3_clip=0.5_lr=0.1",
        "dpsgd_sigma=1.3_clip=1.0",
        "dpsgd_sigma=1.3_clip=2.0_lr=0.025",
    ]
    assert names({"algorithm": "sgd", "lr": [0.1, 0.2], "temperature": [1.0, 2.0], "pair": True}) == [
        "sgd_lr=0.1",
        "sgd_lr=0.2_temperature=2.0",
    ]
    assert names({"sigma": 1.3, "clip": 1.0, "pair": True}) == ["dpsgd_sigma=1.3_clip=1.0"]
    assert names({"sigma": 1.3, "clip": [1.0, 2.0], "pair": True}) == names({"sigma": 1.3, "clip": [1.0, 2.0]})


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "label", "setting"),
    [
        ("sgd", "SGD", ""),
        ({"sigma": 1.3, "clip": 1.0}, "DP-SGD σ = 1.3, C = 1", "σ = 1.3, C = 1"),
        (
            {"sigma": 1.3, "clip": 0.5, "noise": "sigma"},
            "DP-SGD σ = 1.3, C = 0.5, noise σ",
            "σ = 1.3, C = 0.5, noise σ",
        ),
        ({"sigma": 1.3, "clip": 1.0, "lr": 0.1}, "DP-SGD σ = 1.3, C = 1, lr = 0.1", "σ = 1.3, C = 1, lr = 0.1"),
        ({"epsilon": 3.0, "clip": 1.0}, "DP-SGD C = 1 (ε = 3)", "C = 1"),
        ({"algorithm": "sgd", "clip": 0.5}, "SGD, C = 0.5", "C = 0.5"),
        ({"algorithm": "sgd", "sigma": 0.5}, "SGD, σ = 0.5", "σ = 0.5"),
        ({"algorithm": "sgd", "batch_size": 64, "weight_decay": 0.1}, "SGD, batch = 64, weight decay = 0.1", None),
        ({"algorithm": "sgd", "stop": {"accuracy": 0.965}}, "SGD, stopped at 96.5 %", "stopped at 96.5 %"),
        (
            {"algorithm": "sgd", "stop": {"accuracy_of": "x"}},
            "SGD, stopped at the accuracy of x",
            "stopped at the accuracy of x",
        ),
        ({"algorithm": "sgd", "augment": ["flip", "crop"]}, "SGD, augment = flip+crop", "augment = flip+crop"),
        ({"algorithm": "sgd", "nesterov": True}, "SGD, nesterov = true", "nesterov = true"),
        ({"algorithm": "sgd", "temperature": 2}, "SGD, temperature = 2", "temperature = 2"),
        ({"algorithm": "sgd", "init": "xavier"}, "SGD, init = xavier", "init = xavier"),
        ({"algorithm": "sgd", "lr": 0.1, "label": "fast"}, "fast", "lr = 0.1"),
        ({"sigma": 1.3, "clip": 1.0, "label": "the paper's"}, "the paper's", "σ = 1.3, C = 1"),
        ({"weights": "w.pt", "name": "resnet18"}, "resnet18", ""),
        ({"weights": "w.pt", "name": "resnet18", "temperature": 2.5}, "resnet18, T = 2.5", ""),
        ({"weights": "w.pt", "name": "w", "label": "Theirs", "temperature": 2.0}, "Theirs, T = 2", ""),
        ({"weights": "w.pt", "name": "w", "privacy": {"epsilon": 3.0}}, "w (ε = 3)", ""),
    ],
    ids=str,
)
def test_label(entry, label, setting):
    found = run(entry)
    assert found.label() == label
    assert setting is None or found.setting == setting


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(1.8868, "1.89"), (0.0123456, "0.0123"), (110.4, "110"), (1234.5, "1234"), (3.0, "3"), (math.inf, "∞")],
)
def test_a_private_runs_label_has_its_epsilon(epsilon, text):
    assert run({"sigma": 1.3, "clip": 1.0}).label(epsilon) == f"DP-SGD σ = 1.3, C = 1 (ε = {text})"
    assert run({"epsilon": 2.0, "clip": 1.0}).label(epsilon) == f"DP-SGD C = 1 (ε = {text})"
    for entry in ("sgd", {"algorithm": "sgd", "clip": 1.0}, {"weights": "w", "name": "w", "privacy": "none"}):
        assert run(entry).label(epsilon) == run(entry).label()


def test_runs_of_a_grid_do_not_share_a_label():
    assert labels({"sigma": [1.3, 2.0], "clip": 1.0, "label": "noisy"}) == ["noisy, σ = 1.3", "noisy, σ = 2"]
    assert labels({"algorithm": "sgd", "temperature": [1.0, 2.0], "label": "mine"}) == ["mine", "mine, temperature = 2"]
    assert labels({"epsilon": [1.0, 2.0], "clip": 1.0, "label": "mine"}) == ["mine (ε = 1)", "mine (ε = 2)"]
    stops = [{"accuracy": 0.9}, {"accuracy": 0.95, "holdout": 100}]
    assert labels({"algorithm": "sgd", "stop": stops, "label": "mine"}) == [
        "mine, stopped at 90 %",
        "mine, stopped at 95 %, stop.holdout = 100",
    ]


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"sigma": 1.3}], "a DP-SGD run needs clip (and sigma or epsilon)"),
        ([{"clip": 1.0}], "a DP-SGD run needs sigma or epsilon; clipping without noise is {algorithm: sgd, clip: C}"),
        ([{"sigma": [None, 1.3], "clip": 1.0}], "a DP-SGD run needs sigma or epsilon; clipping"),
        ([{"algorithm": "sgd", "sigma": 1.3, "clip": 1.0}], "noise on clipped gradients is DP-SGD: leave out"),
        ([{"algorithm": "sgd", "epsilon": 1.3, "clip": 1.0}], "noise on clipped gradients is DP-SGD: leave out"),
        ([{"algorithm": "sgd", "epsilon": 1.3}], "epsilon needs clip: without it no noise is private"),
        ([{"algorithm": "sgd", "sigma": 1.3, "noise": "sigma*clip"}], "noise: without clip the noise has standard"),
        ([{"algorithm": "sgd", "noise": "sigma"}], "noise: without clip the noise has standard"),
        ([{"algorithm": "sgd", "clip": 2.0, "noise": "sigma"}], "noise: without clip the noise has standard"),
        ([{"algorithm": "sgd", "engine": "ghost"}], "engine is how gradients are clipped: it needs clip"),
        ([{"algorithm": "sgd", "clip_function": "automatic"}], "clip_function is how gradients are clipped: it needs"),
        ([{"sigma": 1.3, "epsilon": 1.0, "clip": 1.0}], "sigma and epsilon exclude one another"),
        ([{"sigma": 1.3, "clip": 1.0, "stop": {"accuracy": 0.9}}], "cannot stop by the accuracy it reaches"),
        ([{"sigma": 1.3, "clip": [1.0, 2.0], "lr": [1.0, 2.0, 3.0], "pair": True}], "pair: lists of different lengths"),
        ([{"sigma": 1.3, "clip": 1.0, "init": "xavier", "model": {"init": "xavier"}}], "init and model.init"),
        (["sgd", "sgd"], "sgd is listed twice"),
        (["sgd", {"algorithm": "sgd", "lr": 0.05}], "sgd is listed twice"),
        ([{"sigma": 1, "clip": 1}, {"sigma": 1.0, "clip": [2.0, 1.0]}], "dpsgd_sigma=1.0_clip=1.0 is listed twice"),
        ([{"sigma": 1.0, "clip": 1.0, "noise": ["sigma", "sigma*clip"]}], "dpsgd_sigma=1.0_clip=1.0 is listed twice"),
        ([{"weights": "a", "name": "x"}, {"weights": "b", "name": "x"}], "weights=x is listed twice"),
        ([{"algorithm": "sgd", "model": {"hidden": [1000] * 60}}], "is too long for paths"),
    ],
    ids=str,
)
def test_what_does_not_go_together(entries, message):
    with pytest.raises(PydanticCustomError) as caught:
        runs(*entries)
    text = str(caught.value)
    assert message in text and "\n" not in text and "{message}" not in text


def test_lengths_of_pairs_are_told():
    with pytest.raises(PydanticCustomError, match=r"\(lr 3, clip 2\)"):
        runs({"sigma": 1.3, "clip": [1.0, 2.0], "lr": [1.0, 2.0, 3.0], "pair": True})


def test_the_longest_name_fits_a_path():
    found = run({"algorithm": "sgd", "model": {"hidden": [1000] * 30}, "temperature": 1 / 3})
    assert len(found.base) <= LONGEST and len(found.name) < 220


@pytest.mark.parametrize(
    "entry",
    [
        "dpsgd",
        1,
        {"algorithm": "adam"},
        {"sigma": 1.3, "clip": 1.0, "sgima": 1.0},
        {"sigma": -1.0, "clip": 1.0},
        {"sigma": math.nan, "clip": 1.0},
        {"sigma": math.inf, "clip": 1.0},
        {"sigma": "1.3", "clip": 1.0},
        {"sigma": [], "clip": 1.0},
        {"sigma": [1.3, 1.3], "clip": 1.0},
        {"sigma": [1.0, 1], "clip": 1.0},
        {"sigma": 1.3, "clip": 0},
        {"sigma": 1.3, "clip": [1.0, -1.0]},
        {"algorithm": "sgd", "epochs": 1.5},
        {"algorithm": "sgd", "epochs": [1, 0]},
        {"algorithm": "sgd", "augment": ["turn"]},
        {"algorithm": "sgd", "augment": [["flip", "flip"]]},
        {"algorithm": "sgd", "temperature": 0},
        {"algorithm": "sgd", "stop": {"accuracy": 1.5}},
        {"algorithm": "sgd", "stop": {"acuracy": 0.5}},
        {"algorithm": "sgd", "stop": {"accuracy": 0.5, "accuracy_of": "x"}},
        {"algorithm": "sgd", "stop": {"holdout": 50}},
        {"algorithm": "sgd", "delta": 1e-5},
        {"weights": "w.pt"},
        {"weights": "", "name": "w"},
        {"weights": "w.pt", "name": "a_b"},
        {"weights": "w.pt", "name": "a/b"},
        {"weights": "w.pt", "name": "-a"},
        {"weights": "w.pt", "name": "a\n"},
        {"weights": "w.pt", "name": "w", "privacy": "some"},
        {"weights": "w.pt", "name": "w", "temperature": -1.0},
        {"weights": "w.pt", "name": "w", "sigma": 1.0},
    ],
    ids=str,
)
def test_entries_out_of_range(entry):
    with pytest.raises(ValidationError):
        ENTRIES.validate_python([entry])


# -- other processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [entry for entry, _ in NAMES], ids=str)
def test_a_run_is_the_same_in_another_process(entry):
    found = run(entry)
    plain = json.loads(json.dumps(found.plain()))
    again = Run(**plain)
    assert again == found and again.plain() == found.plain()
    assert (again.training, again.privacy, again.own) == (found.training, found.privacy, found.own)
    assert again.label(2.0) == found.label(2.0)


def test_entries_are_the_same_in_another_process():
    """Checked entries can be written down, and taken as they are."""
    entries = ["sgd", {"sigma": [1.3], "clip": 1.0}, {"weights": "w.pt", "name": "w", "privacy": {"epsilon": 1.0}}]
    display = RunsDisplay(shows="fgsm", runs=entries)
    assert isinstance(display.runs[2], WeightsEntry)
    assert RunsDisplay(**display.plain()) == display
    assert RunsDisplay(shows="fgsm", runs=display.runs) == display
    assert isinstance(run({"algorithm": "sgd", "stop": {"accuracy": 0.5}}).training.stop, Stop)


def test_coupled_runs_draw_alike():
    from makers import runs

    from dprobust.agreement import check_coupled

    private = {"sigma": 1.3, "clip": 1.0, "coupled": "why"}
    check_coupled(runs({"algorithm": "sgd", "sampling": "poisson", "coupled": "why"}, private))
    check_coupled(runs("sgd", private))
    with pytest.raises(
        PydanticCustomError, match="has sampling poisson, but sgd_coupled=why .* shuffle: .* leave coup"
    ):
        check_coupled(runs({"algorithm": "sgd", "coupled": "why"}, private))
    with pytest.raises(PydanticCustomError, match="secret randomness cannot be shared"):
        runs(private | {"randomness": "secret"})
