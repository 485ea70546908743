"""The accuracy table from made-up records and trainings."""

import pandas as pd
import pytest
from makers import runs

from dprobust.displays.accuracy.display import Display
from dprobust.displays.accuracy.show import show
from dprobust.errors import UserError
from dprobust.showing import Given

DP = "dpsgd_sigma=1.0_clip=3.0"
RUNS = runs("sgd", {"sigma": 1.0, "clip": 3.0}, {"algorithm": "sgd", "clip": 1.0, "stop": {"accuracy": 0.6}})
STOPPED = RUNS[2].name
PAPER = pd.DataFrame({"dataset": ["cifar10"], "run": ["sgd"], "accuracy": [81.3]})


def measured(run, *values, dataset="cifar10", n=500):
    about = {"dataset": dataset, "run": run, "metric": "accuracy", "n": n}
    return [about | {"seed": seed, "value": value} for seed, value in enumerate(values)]


def training(run, seed, dataset="cifar10", epochs=2, **more):
    last = {key: more.pop(key) for key in ("clipped", "mean_norm", "step", "holdout_accuracy") if key in more}
    history = [{"epoch": epoch, "test_accuracy": 0.1} for epoch in range(1, epochs)]
    history += [{"epoch": epochs, "test_accuracy": 0.2} | last]
    return {"dataset": dataset, "run": run, "seed": str(seed), "history": history} | more


RECORDS = pd.DataFrame(
    [
        *measured("sgd", 0.75, 0.77),
        *measured(DP, 0.68, 0.70),
        *measured(STOPPED, 0.60, 0.62),
        *measured("sgd", 0.99, dataset="mnist", n=1000),
        {"dataset": "cifar10", "run": "sgd", "metric": "confidence", "n": 500, "seed": 0, "value": 0.123},
    ]
)
TRAINED = (
    training("sgd", 0),
    training("sgd", 1),
    training(DP, 0, clipped=0.5, mean_norm=4.0),
    training(DP, 1, clipped=0.7, mean_norm=6.0),
    training(STOPPED, 0, epochs=1, step=25, holdout_accuracy=0.61, clipped=1.0, mean_norm=2.0),
    training(STOPPED, 1, step=50, holdout_accuracy=0.63, clipped=1.0, mean_norm=2.0),
    training("sgd", 0, dataset="mnist"),
)
PRETRAINED = ({"dataset": "cifar10", "public": "cifar100", "history": [{"epoch": 30, "test_accuracy": 0.52}]},)


def made(settings=None, **given):
    given = {"runs": RUNS, "records": {"clean": RECORDS}, "trained": TRAINED, "pretrained": PRETRAINED} | given
    return show(Given(**given), settings or Display(shows="accuracy"))


def test_numbers_are_those_of_the_record():
    data, _ = made(paper=PAPER)
    assert list(data["run"]) == ["pretraining on cifar100", "sgd", DP, STOPPED, "sgd"]
    assert list(data["mean"]) == pytest.approx([52, 76, 69, 61, 99])
    assert list(data["min"]) == pytest.approx([52, 75, 68, 60, 99])
    assert list(data["max"]) == pytest.approx([52, 77, 70, 62, 99])
    assert list(data["epochs"]) == [30, 2, 2, 2, 2] and list(data["seeds"]) == [1, 2, 2, 2, 1]
    assert list(data["stop_min"].dropna()) == [25] and list(data["images"])[1:] == [500, 500, 500, 1000]
    assert data["paper"].notna().tolist() == [False, True, False, False, False]
    assert tuple(data.loc[3, ["stop_max", "held_out"]]) == pytest.approx((50, 62))
    assert data.loc[2, "clipped"] == pytest.approx(60) and data.loc[2, "mean_norm"] == pytest.approx(5)


def test_table_to_read():
    _, shown = made(paper=PAPER)
    assert list(shown.loc[1]) == ["cifar10", "SGD", "", "2", "", "76.00", "75.00 to 77.00", "81.30", "", ""]
    assert list(shown.loc[2]) == [
        *("cifar10", "DP-SGD", "σ = 1, C = 3", "2", "", "69.00", "68.00 to 70.00", "", "60.0", "5"),
    ]
    assert shown.loc[3, "stopped at step"] == "25 to 50"
    assert shown.loc[3, "setting"] == "C = 1, stopped at 60 %" and shown.loc[3, "clipped in %"] == "100.0"


def test_given_weights_and_temperatures_appear():
    more = runs("sgd", {"algorithm": "sgd", "temperature": 2.0}, {"weights": "a.pt", "name": "mine", "label": "Mine"})
    records = pd.DataFrame([row for run in more for row in measured(run.name, 0.7)])
    data, shown = made(runs=more, records={"clean": records}, trained=(training("sgd", 0),), pretrained=())
    assert list(shown["algorithm"]) == ["SGD", "SGD", "given weights"]
    assert list(shown["setting"]) == ["", "temperature = 2", "Mine"] and list(shown["epochs"]) == ["2", "2", ""]
    assert list(data["mean"]) == pytest.approx([70, 70, 70])


def test_without_dpsgd_and_pretraining():
    data, shown = made(records={"clean": RECORDS[RECORDS["dataset"] == "mnist"]}, pretrained=())
    assert list(shown["over seeds"]) == ["1 seed"] and data["paper"].isna().all()
    assert list(shown.columns) == ["dataset", "algorithm", "setting", "epochs", "accuracy in %", "over seeds"]


def test_a_file_without_the_columns_is_named():
    with pytest.raises(UserError, match=r"accuracy.csv: has columns run, sgd; needs dataset, run, accuracy"):
        made(paper=pd.DataFrame({"run": ["x"], "sgd": [1.0]}))
