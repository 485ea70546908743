"""How far a study is, from files made by hand."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import ROOT

from dprobust import checkpoints, seals, training
from dprobust.accounting import poisson
from dprobust.arrays import Split
from dprobust.plan import Plan
from dprobust.progress import CHECKPOINT, EPOCH, LOG, progress, so_far
from dprobust.recipe import Training
from dprobust.study import Study

DP = "dpsgd_sigma=1.3_clip=1.0"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config |= {"study": "mine", "seeds": [0, 1], "only": ["fig2", "privacy"]}
    return Plan(Study(config), ROOT / "workflow" / "scripts")


def test_nothing_is_there(plan):
    table = progress(plan)
    assert table["run"].tolist() == ["sgd", DP] and table["trained"].tolist() == [0, 0]
    assert table["to_measure"].tolist() == [2, 2] and table["missing"].tolist() == ["fgsm", "fgsm"]
    assert table["training"].tolist() == ["", ""] and table[["accuracy", "epsilon"]].isna().all(axis=None)


def test_what_is_there(plan, tmp_path):
    results = tmp_path / "results" / "mine"
    for seed, accuracy in ((0, 0.9), (1, 0.8)):
        (folder := results / "models" / "mnist" / "sgd" / f"seed={seed}").mkdir(parents=True)
        (folder / "train.json").write_text(
            json.dumps({"history": [{"test_accuracy": 0.1}, {"test_accuracy": accuracy}]})
        )
    for seed in (0, 1):
        (results / "models" / "mnist" / DP / f"seed={seed}").mkdir(parents=True)
    history = {"history": [{"test_accuracy": 0.5}, {"test_accuracy": 0.625}]}
    unfinished = results / "models" / "mnist" / DP / "seed=0" / "checkpoint.safetensors"
    checkpoints.save(unfinished, {"w": torch.zeros(2)}, history, "whose")
    (results / "models" / "mnist" / DP / "seed=1" / "checkpoint.safetensors").write_bytes(b"\xff" * 20)
    (results / "records" / "mnist" / "sgd" / "seed=1").mkdir(parents=True)
    (results / "records" / "mnist" / "sgd" / "seed=1" / "fgsm.csv").touch()
    (results / "records" / "mnist" / DP).mkdir(parents=True)
    record = pd.DataFrame(
        {
            "run": DP,
            "delta": [1e-6, 1e-6, 1e-5],
            "adjacency": ["add-remove"] * 3,
            "accountant": ["rdp", "prv", "prv"],
            "epsilon": [2.0, 1.9, 1.6],
        }
    )
    record.to_csv(results / "records" / "mnist" / DP / "privacy.csv", index=False)
    sgd, private = progress(plan).to_dict("records")
    assert sgd["trained"] == 2 and sgd["accuracy"] == pytest.approx(0.85)
    assert (sgd["measured"], sgd["to_measure"], sgd["missing"]) == (1, 2, "fgsm")
    # Of Poisson batches of 256 of 60,000, by dp-accounting's PLD of two epochs' steps at the first delta.
    spent = poisson.pld(1.3, 256 / 60_000, 2 * (60_000 // 256), 1e-6)
    assert private["training"] == f"seed 0: epoch 2 of 50, 62.5 %, epsilon {spent:.3g}; seed 1: damaged checkpoint"
    assert private["trained"] == 0 and private["epsilon"] == 1.9
    assert sgd["broken"] == private["broken"] == ""
    seals.seal([model := results / "models" / "mnist" / "sgd" / "seed=1" / "train.json"])
    model.write_text(model.read_text().replace("0.8", "0.9"))
    assert [row["broken"] for row in progress(plan).to_dict("records")] == ["seed=1/train.json", ""]


@pytest.mark.parametrize(
    ("age", "words"), [(30, ", 13 min left"), (500, ", 5 min left"), (700, ", silent for 12 min"), (None, "")]
)
def test_the_time_left_is_by_the_log(plan, age, words):
    """Its last word: 13.5 minutes for the last 3 of 5 epochs, 4.5 minutes each."""
    where = {"study": "mine", "dataset": "mnist", "run": "sgd", "seed": 1}
    (checkpoint := Path(CHECKPOINT.format(**where))).parent.mkdir(parents=True)
    checkpoints.save(checkpoint, {"w": torch.zeros(2)}, {"history": [{"test_accuracy": 0.5}] * 2}, "whose")
    if age is not None:
        (log := Path(LOG.format(**where))).parent.mkdir(parents=True)
        text = "2026-01-01 00:00:00,000 epoch {} of 5: test accuracy 50.00 %, {} min left\n"
        log.write_text(text.format(1, 99.0) + text.format(2, 13.5))
        os.utime(log, (time.time() - age,) * 2)
    assert str(so_far(plan, "mnist", "sgd", 1)) == f"epoch 2 of 50, 50.0 %{words}"


def test_a_training_writes_what_is_read_here(caplog):
    """An epoch of a small network, with the log of a real training."""
    data = Split(np.zeros((32, 1, 4, 4), np.uint8), np.zeros(32, np.int64))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    with caplog.at_level("INFO"):
        training.train(model, data, data, Training(epochs=2, batch_size=16, lr=0.1), ("0", "test"))
    assert [found.group(1, 2) for found in EPOCH.finditer("\n".join(caplog.messages))] == [("1", "2"), ("2", "2")]


def test_the_command(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "workflow.status", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    (overlay := tmp_path / "o.yaml").write_text("study: nowhere\nonly: [fig2, privacy]")
    told = call("progress", str(overlay)).stdout
    assert told.startswith("study nowhere\n") and "0 of 10 trainings and 0 of 10 records are there" in told
    assert "no job has finished" in call("cost", str(overlay)).stdout
    wrong = call("cost", "nope.yaml")
    assert wrong.returncode == 1 and "nope.yaml" in wrong.stderr and "Traceback" not in wrong.stderr
