"""The accuracy table from made-up trainings."""

import pytest

from dprobust.tables import accuracy

DP = "dpsgd_sigma=1.0_clip=3.0"


def training(run, seed, value, dataset="cifar10", **more):
    history = [{"epoch": 1, "test_accuracy": 0.1}, {"epoch": 2, "test_accuracy": value} | more]
    return {"dataset": dataset, "run": run, "seed": str(seed), "history": history}


TRAINED = [
    training("sgd", 0, 0.75),
    training("sgd", 1, 0.77),
    training(DP, 0, 0.68, clipped=0.5, mean_norm=4.0),
    training(DP, 1, 0.70, clipped=0.7, mean_norm=6.0),
    training("sgd", 0, 0.99, dataset="mnist"),
]
PRETRAINED = [{"dataset": "cifar10", "public": "cifar100", "history": [{"epoch": 30, "test_accuracy": 0.52}]}]


def test_numbers_are_those_of_the_last_epoch():
    data, _ = accuracy.make(TRAINED, PRETRAINED, {("cifar10", "sgd"): 81.3})
    assert list(data["run"]) == ["pretraining on cifar100", "sgd", DP, "sgd"]
    assert list(data["mean"]) == pytest.approx([52, 76, 69, 99])
    assert list(data["min"]) == pytest.approx([52, 75, 68, 99]) and list(data["max"]) == pytest.approx([52, 77, 70, 99])
    assert list(data["epochs"]) == [30, 2, 2, 2] and list(data["seeds"]) == [1, 2, 2, 1]
    assert data["paper"].notna().tolist() == [False, True, False, False]
    assert data.loc[2, "clipped"] == pytest.approx(60) and data.loc[2, "mean_norm"] == pytest.approx(5)


def test_table_to_read():
    _, shown = accuracy.make(TRAINED, PRETRAINED, {("cifar10", "sgd"): 81.3})
    assert list(shown.loc[1]) == ["cifar10", "SGD", "", "", "2", "76.00", "75.00 to 77.00", "81.3", "", ""]
    assert list(shown.loc[2]) == ["cifar10", "DP-SGD", "1", "3", "2", "69.00", "68.00 to 70.00", "", "60.0", "5"]


def test_without_dpsgd_and_pretraining():
    data, shown = accuracy.make(TRAINED[-1:], [], {})
    assert list(shown["over seeds"]) == ["1 seed"] and data["paper"].isna().all()
