"""Random streams: fixed by their names, on every machine and in every version."""

import hashlib
import json
import secrets

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT
from scipy import stats

from dprobust import arrays, training
from dprobust.errors import UserError
from dprobust.noise import residuals
from dprobust.plan import Plan, key
from dprobust.privacy import resolve
from dprobust.recipe import Training
from dprobust.samplers import batches
from dprobust.seeds import derive, generator, normal_generator, secret_generator, secret_normal_generator, stream
from dprobust.stages.train import train
from dprobust.study import Study


def drawn(random, n=4):
    return torch.randint(2**31, (n,), generator=random).tolist()


def test_a_seed_is_the_hash_of_its_names():
    expected = int(hashlib.sha256(b"0/mnist/sgd/noise").hexdigest()[:16], 16) >> 1
    assert derive(0, "mnist", "sgd", "noise") == derive("0", "mnist", "sgd", "noise") == expected < 2**63


def test_streams_of_other_names_are_others():
    names = [("a",), ("b",), ("a", "b"), ("a", 0), ("a", 1)]
    assert len({tuple(drawn(generator(*name))) for name in names}) == len(names)
    assert drawn(generator("a")) == drawn(generator("a"))


def test_a_generator_leaves_the_global_one_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    generator("a")
    assert torch.rand(1) == expected


@pytest.mark.parametrize("seed", [0, derive("a")])
def test_the_cpu_uses_32_bits_of_a_seed(seed):
    """As the docstring says; were it otherwise, it would have to say so."""
    one, same, other = (drawn(torch.Generator().manual_seed(s % 2**63)) for s in (seed, seed + 2**32, seed + 1))
    assert one == same != other


def test_a_normal_generator_has_128_bits_of_the_names():
    seed = int(hashlib.sha256(b"a/1").hexdigest()[:32], 16)
    expected = np.random.Generator(np.random.SFC64(seed)).standard_normal(4)
    assert np.array_equal(normal_generator("a", 1).standard_normal(4), expected)
    assert not np.array_equal(normal_generator("a", 2).standard_normal(4), expected)


def test_secret_numbers_are_those_of_aes(monkeypatch):
    """FIPS 197, appendix C.1, for the cipher; its key is asked of the operating system."""
    from randomgen import AESCounter

    plain, cipher = "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"
    key, block = int.from_bytes(bytes(range(16)), "little"), int.from_bytes(bytes.fromhex(plain), "little")
    assert AESCounter(key=key, counter=block).random_raw(2).astype("<u8").tobytes().hex() == cipher
    assert secret_normal_generator().standard_normal() != secret_normal_generator().standard_normal()
    asked = []
    monkeypatch.setattr(secrets, "randbits", lambda bits: asked.append(bits) or key)
    expected = np.random.Generator(AESCounter(key=key)).standard_normal(5)
    assert np.array_equal(secret_normal_generator().standard_normal(5), expected) and asked == [128]


def test_the_whole_state_of_a_secret_generator_is_the_operating_systems(monkeypatch):
    """Every word: NumPy's mt19937 with these words gives the same numbers, over more than one round of the state."""
    assert drawn(secret_generator()) != drawn(secret_generator())
    words, asked = np.random.default_rng(0).integers(0, 2**32, 624, np.uint32), []
    monkeypatch.setattr(secrets, "token_bytes", lambda n: asked.append(n) or words.tobytes())
    reference = np.random.MT19937()
    reference.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    # Of so few numbers torch draws each from one word.
    found = torch.randint(2**20, (2000,), generator=secret_generator())
    assert found.tolist() == (reference.random_raw(2000) % 2**20).tolist()
    assert asked == [2496]
    monkeypatch.undo()
    uniform = torch.rand(100_000, generator=secret_generator(), dtype=torch.float64)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-7


# The streams of a training.

PRETRAIN = {"public": "cifar100", "data": "ab", "training": {"lr": 0.1}, "device": "cpu", "code": "1", "unofficial": []}
SPEC = {
    "training": Training(epochs=1, batch_size=8, clip=0.01, sigma=1.3).plain(),
    "model": {"name": "lenet", "channels": [2, 3], "hidden": [8], "init": "default"},
    "data": "0123",
    "pretrained": None,
    "draws": {"train": "mnist/train", "test": "mnist/test"},
    "sizes": {"train": 8, "test": 8},
    "unofficial": [],
    "device": "cpu",
    "code": "1",
}


def changed(**changes):
    """The specification with changes, nested ones by ``section__key``."""
    spec = {name: dict(value) if isinstance(value, dict) else value for name, value in SPEC.items()}
    for name, value in changes.items():
        *outer, last = name.split("__")
        (spec[outer[0]] if outer else spec)[last] = value
    return spec


OTHER = [
    {"training__lr": 0.06},
    {"training__sigma": 1.4},
    {"training__clip": 0.02},
    {"training__epochs": 2},
    {"training__randomness": "secret"},
    {"model__init": "kaiming"},
    {"model__hidden": [9]},
    {"model__normalize": {"mean": [0.1], "std": [0.3]}},
    {"data": "0124"},
    {"sizes__train": 9},
    {"draws__train": "other/train"},
    {"pretrained": PRETRAIN},
    {"pretrained": PRETRAIN | {"data": "ac"}},
]
SAME = [
    {"device": "cuda"},
    {"code": "2"},
    {"unofficial": ["mnist/train"]},
    {"sizes__test": 9},
    {"draws__test": "other/test"},
]


def test_what_defines_a_training_names_its_streams():
    names = [stream(0, SPEC), stream(1, SPEC), *(stream(0, changed(**change)) for change in OTHER)]
    assert len(set(names)) == len(names)
    assert {stream(0, changed(**change)) for change in SAME} == {stream("0", SPEC)}
    pretrained = {stream(0, changed(pretrained=PRETRAIN | more)) for more in ({}, {"code": "2"}, {"device": "cuda"})}
    assert len(pretrained) == 1


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_an_edit_of_the_code_leaves_the_streams_of_a_study(monkeypatch, dataset):
    """Of a plan as it is, where the head of a network trains on what pre-trained convolutions make of images."""
    study = Study(yaml.safe_load((ROOT / "config.yaml").read_text()))
    plans = [Plan(study, ROOT / "workflow" / "scripts") for _ in range(2)]
    monkeypatch.setattr(plans[1], "code", lambda *roots: "edited")
    specs = [[plan.train(dataset, run) for run in study.trained(dataset)] for plan in plans]
    (names, edited), (keys, others) = ([{f(s) for s in each} for each in specs] for f in (lambda s: stream(0, s), key))
    assert names == edited and len(names) == len(specs[0])
    assert not keys & others


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "test"):
        arrays.save(folder / f"{split}.npz", rng.integers(0, 256, (9, 1, 28, 28), np.uint8), np.arange(9) % 3, 3)
    return folder


def first(images, folder, monkeypatch, spec, run="run", seed="0"):
    """Batch, initial weights and noise of the first step of a training."""
    seen, original = {}, training.train

    def watched(model, *arguments, **more):
        start, steps = {name: p.detach().clone() for name, p in model.named_parameters()}, []
        history = original(model, *arguments, **more, watch=steps.append)
        std = arguments[2].noise_std
        noise = residuals(steps[0], std)
        seen.update(start=start, noise=noise)
        return history

    with monkeypatch.context() as patched:
        patched.setattr(training, "train", watched)
        inputs = {split: images / f"{split}.npz" for split in ("train", "test")}
        about = {"dataset": "mnist", "run": run, "seed": seed}
        train(spec, inputs, folder / "model.safetensors", folder / "train.json", about, torch.device("cpu"))
    return seen


@pytest.mark.parametrize("change", [{"training__lr": 0.06}, {"model__init": "kaiming"}, {"data": "0124"}], ids=str)
def test_trainings_that_differ_share_no_noise(images, tmp_path, monkeypatch, change):
    """Of one seed and one run's name: in the difference of their first updates nothing of the noise is left out."""
    one = first(images, tmp_path, monkeypatch, SPEC)
    other = first(images, tmp_path, monkeypatch, changed(**change))
    difference = np.concatenate([one["noise"][name] - other["noise"][name] for name in one["noise"]])
    assert difference.std() == pytest.approx(2**0.5, rel=0.1)
    assert not any(torch.equal(one["start"][name], value) for name, value in other["start"].items() if value.any())


@pytest.mark.parametrize("change", [{"code": "2"}, {"device": "cuda"}, {"sizes__test": 9}], ids=str)
def test_a_training_keeps_its_noise(images, tmp_path, monkeypatch, change):
    one = first(images, tmp_path, monkeypatch, SPEC)
    other = first(images, tmp_path, monkeypatch, changed(**change), run="another name")
    assert all(np.array_equal(one["noise"][name], other["noise"][name]) for name in one["noise"])
    assert all(torch.equal(one["start"][name], value) for name, value in other["start"].items())


def test_an_epsilon_is_the_sigma_that_it_becomes(images, tmp_path, monkeypatch):
    """Were it named by epsilon, another accountant's sigma would scale the same noise."""
    asked = {"sigma": None, "epsilon": 5.0, "delta": 1e-5, "sampling": "shuffle"}
    by_epsilon = changed(training=SPEC["training"] | asked)
    one = first(images, tmp_path, monkeypatch, by_epsilon)
    sigma = resolve(Training(**by_epsilon["training"]), 8).sigma
    other = first(images, tmp_path, monkeypatch, changed(training__sigma=sigma))
    assert all(np.array_equal(one["noise"][name], other["noise"][name]) for name in one["noise"])


def test_a_record_tells_where_randomness_came_from(images, tmp_path, monkeypatch):
    weights = []
    for randomness in ("reproducible", "reproducible", "secret", "secret"):
        first(images, tmp_path, monkeypatch, changed(training__randomness=randomness))
        weights.append((tmp_path / "model.safetensors").read_bytes())
        record = json.loads((tmp_path / "train.json").read_text())
        assert record["randomness"]["source"] == randomness
        said = {"reproducible": "nothing is guaranteed", "secret": "no byte of this training is reproducible"}
        assert said[randomness] in record["randomness"]["meaning"]
        assert ("clipped" in record["history"][0]) == ("mean_norm" in record["history"][0]) == (randomness != "secret")
    assert weights[0] == weights[1] and len(set(weights)) == 3


COUPLED = [{"training__lr": 0.06}, {"training__sigma": 2.6}, {"training__clip": 0.02}, {"training__epochs": 2}]


@pytest.mark.parametrize("change", COUPLED, ids=str)
def test_coupled_trainings_share_start_batches_and_draws(images, tmp_path, monkeypatch, change):
    def seen(**more):
        drawn = []

        def watched(*arguments):
            for batch in batches(*arguments):
                drawn.append(batch.tolist())
                yield batch

        monkeypatch.setattr(training, "batches", watched)
        return first(images, tmp_path, monkeypatch, changed(training__coupled="why", **more)), drawn[0]

    (one, batch), (other, others) = seen(), seen(**change)
    assert batch == others
    assert all(torch.equal(one["start"][name], value) for name, value in other["start"].items())
    for name, value in one["noise"].items():  # standard normal draws, up to the rounding of sums
        np.testing.assert_allclose(other["noise"][name], value, atol=1e-4)
    record = json.loads((tmp_path / "train.json").read_text())
    assert record["coupled"]["group"] == "why" and "alone" in record["coupled"]["meaning"]


def test_groups_seeds_and_data_tell_streams_apart():
    one = stream(0, changed(training__coupled="why"))
    others = [stream(0, SPEC), stream(1, changed(training__coupled="why")), stream(0, changed(training__coupled="b"))]
    others.append(stream(0, changed(training__coupled="why", data="0124")))
    assert len({one, *others}) == 5


def test_an_uncoupled_training_keeps_the_stream_it_had():
    """The digest of what defined a training before there was a `coupled`."""
    told = {name: value for name, value in SPEC.items() if name not in ("device", "code", "unofficial")}
    told["training"] = {name: value for name, value in told["training"].items() if name != "coupled"}
    told |= {"draws": "mnist/train", "sizes": 8}
    assert stream(0, SPEC)[1] == hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def test_a_setting_that_is_as_by_default_is_in_no_stream(images, tmp_path, monkeypatch):
    """So that a setting that is new leaves the noise of old trainings alone."""
    first(images, tmp_path, monkeypatch, SPEC)
    found = json.loads((tmp_path / "train.json").read_text())["stream"]
    brief = Training(**SPEC["training"]).brief()
    assert "weight_decay" not in brief and found == list(stream(0, SPEC | {"training": brief}))


def test_an_accuracy_to_reach_is_that_of_the_other_training(images, tmp_path):
    other, record = tmp_path / "other.json", tmp_path / "train.json"
    inputs = {split: images / f"{split}.npz" for split in ("train", "test")} | {"reach": other}
    about, device = {"dataset": "mnist", "run": "run", "seed": "0"}, torch.device("cpu")
    asked = {"stop": {"accuracy_of": "other", "holdout": 2, "every": 1}, "batch_size": 2, "epochs": 99, "lr": 0.5}
    spec = changed(training=SPEC["training"] | {"sigma": None, "clip": None} | asked) | {"reach": "0123"}

    other.write_text(json.dumps({"history": [{"test_accuracy": 0.1}, {"test_accuracy": 0.5}]}))
    train(spec, inputs, tmp_path / "model.safetensors", record, about, device)
    found = json.loads(record.read_text())
    assert found["settings"]["training"]["stop"]["accuracy"] == 0.5
    assert found["settings"]["asked"]["stop"]["accuracy_of"] == "other"
    assert found["history"][-1]["holdout_accuracy"] >= 0.5
    brief = Training(**found["settings"]["training"]).brief()
    assert found["stream"] == list(stream(0, spec | {"training": brief, "reach": "4567"}))

    other.write_text(json.dumps({"history": [{"test_accuracy": 1.0}]}))
    with pytest.raises(UserError, match="other ends with accuracy 1: none to stop at"):
        train(spec, inputs, tmp_path / "model.safetensors", record, about, device)
