"""Temperatures that give a confidence: closed forms, and the job that measures with one."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from dprobust import arrays, seeds
from dprobust.confidence import confidence, matching_temperature
from dprobust.errors import UserError
from dprobust.models import networks
from dprobust.stages.measure import measure


@pytest.mark.parametrize("gap", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("wanted", [0.5001, 0.7, 0.999])
def test_of_two_logits_it_is_their_gap_over_the_log_of_the_odds(gap, wanted):
    logits = np.array([[1.0, 1.0 + gap], [7.0 + gap, 7.0]])
    assert matching_temperature(logits, wanted) == pytest.approx(gap / math.log(wanted / (1 - wanted)), rel=1e-9)


def test_of_ones_own_confidence_it_is_1():
    logits = 8 * np.random.default_rng(0).normal(size=(500, 10))
    assert matching_temperature(logits, confidence(logits)) == pytest.approx(1, abs=1e-12)
    softmax = torch.from_numpy(logits / 2.5).softmax(1).amax(1).mean().item()
    assert confidence(logits, 2.5) == pytest.approx(softmax, rel=1e-12)
    assert matching_temperature(logits, softmax) == pytest.approx(2.5, rel=1e-9)


@pytest.mark.parametrize(("logits", "wanted"), [([[1.0, 2.0]], 1.0), ([[1.0, 2.0]], 0.5), ([[1.0, 1.0]], 0.7)])
def test_a_confidence_that_no_temperature_gives(logits, wanted):
    with pytest.raises(
        UserError, match=rf"no temperature gives the confidence {wanted:g}: this model's goes from 0.5 to"
    ):
        matching_temperature(np.array(logits), wanted)


@pytest.fixture
def job(tmp_path):
    """A job that measures `clean` of one network, to be as confident as another, a tenfold one's."""
    settings = {"name": "lenet", "channels": [2, 3], "hidden": [4]}
    pixels = np.random.default_rng(1).integers(0, 256, (60, 1, 28, 28)).astype(np.uint8)
    arrays.save(tmp_path / "test.npz", pixels, np.arange(60) % 3, 3)
    for name, factor in (("model", 1.0), ("other", 10.0)):
        network = networks.build(settings, (1, 28, 28), 3, seed=seeds.derive("confidence", name))
        with torch.no_grad():
            list(network.parameters())[-2].mul_(factor)
        networks.save(network, tmp_path / f"{name}.safetensors")
    made = {"model": settings, "weights": None}
    spec = {
        "package": "dprobust.metrics.clean",
        "settings": {"images": 10},
        **made,
        "temperature": 1.0,
        "size": 40,
        "draw": "own/test",
        "unofficial": {},
        "code": "",
    }

    def run(of, **more):
        files = {"test": tmp_path / "test.npz", "model": tmp_path / f"{of}.safetensors"}
        files["confident"] = tmp_path / "other.safetensors"
        out = [tmp_path / f"{of}.{suffix}" for suffix in ("csv", "npz", "json")]
        about = {"dataset": "own", "run": of, "seed": "0"}
        measure(spec | more, files, *out, about, torch.device("cpu"))
        rows = pd.read_csv(out[0]).set_index("metric")["value"]
        return rows, np.load(out[1])["logits"], json.loads(out[2].read_text())

    return run, made


def test_the_record_is_of_a_model_as_confident_as_the_other(job):
    run, made = job
    other, _, plain = run("other", settings={"images": None})
    matched = {"confidence_of": {"run": "other", **made}}
    own, logits, told = run("model", settings={"images": None}, **matched)
    assert own["confidence"] == pytest.approx(other["confidence"], rel=1e-6) and own["confidence"] > 0.4
    found = told["matched"]["temperature"]
    assert told["settings"]["temperature"] == found != 1 and told["matched"]["confidence_of"] == "other"
    assert told["matched"]["confidence"] == pytest.approx(other["confidence"], rel=1e-6)
    assert "matched" not in plain and plain["settings"]["temperature"] == 1
    _, without, _ = run("model", settings={"images": None})
    np.testing.assert_allclose(logits * found, without, rtol=1e-5, atol=1e-6)
    # It is of all test images in use, however few are measured.
    _, _, few = run("model", **matched)
    assert few["matched"] == told["matched"]


def test_as_confident_as_itself(job):
    run, made = job
    _, _, told = run("other", confidence_of={"run": "other", **made})
    assert told["matched"]["temperature"] == pytest.approx(1, abs=1e-9)
