"""What a training is told by: ranges, what goes together, and what it says of noise and steps."""

from typing import get_args

import pytest
from makers import runs
from pydantic import ValidationError

from dprobust.augmentation import KINDS
from dprobust.clipping import CLIP_FUNCTIONS
from dprobust.engines import ENGINES
from dprobust.recipe import RANDOMNESS, Common, Dpsgd, Pretraining, Sgd, Statement, Stop, Training


def choices(settings, field):
    """The texts that a field takes, in lists too."""
    found, left = set(), [settings.model_fields[field].annotation]
    while left:
        kind = left.pop()
        if isinstance(kind, str):
            found.add(kind)
        left += get_args(kind)
    return found


@pytest.mark.parametrize("settings", [Common, Sgd, Dpsgd, Pretraining, Training])
def test_choices_are_those_of_the_code(settings):
    assert choices(settings, "augment") == set(KINDS)
    assert choices(settings, "schedule") == {"constant", "one_cycle"}
    if "engine" in settings.model_fields:
        assert choices(settings, "engine") == set(ENGINES)
        assert choices(settings, "clip_function") == set(CLIP_FUNCTIONS)
        assert choices(settings, "randomness") == set(RANDOMNESS)


def test_a_training_has_every_setting_of_the_datasets():
    for settings in (Sgd, Dpsgd, Pretraining):
        assert settings.model_fields.keys() <= Training.model_fields.keys()
        Training(**settings().plain())


def message(**settings):
    with pytest.raises(ValidationError) as caught:
        Training(**settings)
    (error,) = caught.value.errors()
    assert "\n" not in error["msg"]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"sigma": 1.0, "epsilon": 1.0, "clip": 1.0, "delta": 1e-5}, "sigma and epsilon exclude one another"),
        ({"epsilon": 1.0, "clip": 1.0}, "epsilon needs delta and clip"),
        ({"epsilon": 1.0, "delta": 1e-5}, "epsilon needs delta and clip"),
        ({"sigma": 1.0}, "noise without clipping has no C"),
        ({"sigma": 1.0, "clip": 1.0, "stop": {"accuracy": 0.9}}, "would not be private"),
        ({"epsilon": 1.0, "delta": 1e-5, "clip": 1.0, "stop": {"accuracy": 0.9}}, "would not be private"),
        ({"clip": 1.0, "precision": "auto"}, "clipping needs precision float32"),
        ({"stop": {"accuracy": 1.0}}, "stop.accuracy"),
        ({"stop": {"accuracy": 0.9, "every": 0}}, "stop.every"),
        ({"sigma": -1.0}, "sigma"),
        ({"clip": 0.0}, "clip"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"lr": 0.0}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch_size": "256"}, "batch_size"),
        ({"augment": ["flip", "flip"]}, "listed twice"),
        ({"augment": ["turn"]}, "augment"),
        ({"noise_std": 1.0}, "noise_std"),
    ],
)
def test_what_cannot_be(settings, text):
    assert text in message(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clip": 1.0},
        {"clip": 1.0, "sigma": 0.0, "stop": {"accuracy": 0.9}},
        {"sigma": 1.0, "noise": "sigma", "precision": "auto"},
        {"sigma": 1.0, "noise": "sigma", "stop": {"accuracy": 0.9}},
        {"clip": 1.0, "sigma": 1.0, "noise": "sigma", "momentum": 0.9, "nesterov": True, "schedule": "one_cycle"},
        {"clip": 1.0, "epsilon": 3.0, "delta": 1e-5},
    ],
)
def test_what_can_be_is_the_same_in_another_process(settings):
    training = Training(**settings)
    assert Training(**training.plain()) == training


@pytest.mark.parametrize(
    ("settings", "private", "std", "multiplier"),
    [
        ({}, False, 0.0, None),
        ({"clip": 0.5}, False, 0.0, 0.0),
        ({"clip": 0.5, "sigma": 0.0}, False, 0.0, 0.0),
        ({"sigma": 1.3, "noise": "sigma"}, False, 1.3, None),
        ({"clip": 0.5, "sigma": 1.3}, True, 0.65, 1.3),
        ({"clip": 0.5, "sigma": 1.3, "noise": "sigma"}, True, 1.3, 2.6),
    ],
)
def test_noise(settings, private, std, multiplier):
    training = Training(**settings)
    assert training.private is private
    assert training.noise_std == std
    assert training.noise_multiplier == training.mechanism(1000)["noise_multiplier"] == multiplier


def test_a_noise_multiplier_keeps_its_digits():
    assert 0.7 * 3.0 / 3.0 != 0.7
    assert Training(sigma=0.7, clip=3.0).mechanism(60_000)["noise_multiplier"] == 0.7


def test_an_epsilon_says_nothing_of_noise_before_it_is_resolved():
    training = Training(epsilon=2.0, delta=1e-5, clip=1.0)
    assert training.private
    for ask in (lambda: training.noise_std, lambda: training.noise_multiplier, lambda: training.mechanism(60_000)):
        with pytest.raises(ValueError, match="epsilon is not turned into sigma yet"):
            ask()


def test_mechanism_counts_what_is_trained_on():
    training = Training(stop=Stop(accuracy=0.9, holdout=4_640), clip=1.0, epochs=3)
    assert Training().trained_on(60_000) == 60_000
    assert training.mechanism(training.trained_on(60_000)) == {
        "sampling": "shuffle",
        "noise_multiplier": 0.0,
        "sample_rate": 256 / 55_360,
        "steps": 3 * 216,
        "epochs": 3,
    }


def test_defaults_are_the_papers():
    """Section 3 and Algorithm 1; Poisson sampling is what the accountants assume."""
    for settings in (Sgd(), Dpsgd()):
        assert (settings.epochs, settings.batch_size, settings.lr, settings.momentum) == (50, 256, 0.05, 0.0)
    assert (Sgd().sampling, Dpsgd().sampling) == ("shuffle", "poisson")


def test_randomness_is_in_the_name_of_a_run_that_asks_for_it_only():
    private = {"sigma": 1.3, "clip": 1.0}
    plain, same, secret = runs(
        private, private | {"randomness": "reproducible", "lr": 0.1}, private | {"randomness": "secret"}
    )
    assert plain.name == "dpsgd_sigma=1.3_clip=1.0" and "randomness" not in same.name
    assert secret.name == "dpsgd_sigma=1.3_clip=1.0_randomness=secret"
    assert [run.training.randomness for run in (plain, same, secret)] == ["reproducible", "reproducible", "secret"]
    assert "secret" in message(randomness="secrets")


def test_statement():
    assert Statement(epsilon=3.0).delta == 1e-5
    for wrong in ({"epsilon": -1.0}, {"epsilon": 1.0, "delta": 0.0}, {}):
        with pytest.raises(ValidationError):
            Statement(**wrong)


def test_bfloat16_is_no_training_side_by_side():
    """Trainings side by side clip in float32."""
    assert Training(clip=1.0, sigma=1.0, engine="bfloat16").alone == "engine"
    assert not Training(clip=1.0, sigma=1.0).alone and not Training(engine="bfloat16").alone
