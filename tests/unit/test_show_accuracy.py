"""The accuracy table from made-up records and trainings."""

import numpy as np
import pandas as pd
import pytest
from makers import runs

from dprobust.displays.accuracy.display import Display
from dprobust.displays.accuracy.show import show
from dprobust.errors import UserError
from dprobust.showing import Given
from dprobust.statistics import mean_interval

SHARES = ((0.75, 0.77), (0.68, 0.70))
DP = "dpsgd_sigma=1.0_clip=3.0"
RUNS = runs("sgd", {"sigma": 1.0, "clip": 3.0}, {"algorithm": "sgd", "clip": 1.0, "stop": {"accuracy": 0.6}})
STOPPED = RUNS[2].name
PAPER = pd.DataFrame({"dataset": ["cifar10"], "run": ["sgd"], "accuracy": [81.3]})


def right(*shares, n=500):
    """Of n images the first so many, a row a seed."""
    return np.array([np.arange(n) < round(share * n) for share in shares])


def measured(run, *shares, dataset="cifar10", n=500):
    """The arrays of a run with such accuracies: the true class, 1, has the larger of two logits where it is right."""
    return {
        ("clean", dataset, run, seed): {"logits": np.stack([~of, of], 1).astype(np.float32), "label": np.ones(n, int)}
        for seed, of in enumerate(right(*shares, n=n))
    }


def training(run, seed, dataset="cifar10", epochs=2, **more):
    last = {key: more.pop(key) for key in ("clipped", "mean_norm", "step", "holdout_accuracy") if key in more}
    history = [{"epoch": epoch, "test_accuracy": 0.1} for epoch in range(1, epochs)]
    history += [{"epoch": epochs, "test_accuracy": 0.2} | last]
    return {"dataset": dataset, "run": run, "seed": str(seed), "history": history} | more


MNIST = measured("sgd", 0.99, dataset="mnist", n=1000)
ARRAYS = measured("sgd", 0.75, 0.77) | measured(DP, 0.68, 0.70) | measured(STOPPED, 0.60, 0.62) | MNIST
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
    given = {"runs": RUNS, "arrays": ARRAYS, "trained": TRAINED, "pretrained": PRETRAINED} | given
    return show(Given(**given), settings or Display(shows="accuracy"))


def test_numbers_are_those_of_the_record():
    data, _ = made(paper=PAPER)
    assert list(data["run"]) == ["pretraining on cifar100", "sgd", DP, STOPPED, "sgd"]
    assert list(data["mean"]) == pytest.approx([52, 76, 69, 61, 99])
    assert data.loc[0, ["low", "high"]].isna().all()  # of a pre-training no images are kept
    for row, values in ((1, right(0.75, 0.77)), (2, right(0.68, 0.70)), (4, right(0.99, n=1000))):
        known = mean_interval(100.0 * values, within=(0, 100))
        assert tuple(data.loc[row, ["mean", "low", "high"]]) == pytest.approx(known)
    assert list(data["epochs"]) == [30, 2, 2, 2, 2] and list(data["seeds"]) == [1, 2, 2, 2, 1]
    assert list(data["stop_min"].dropna()) == [25] and list(data["images"])[1:] == [500, 500, 500, 1000]
    assert data["paper"].notna().tolist() == [False, True, False, False, False]
    assert tuple(data.loc[3, ["stop_max", "held_out"]]) == pytest.approx((50, 62))
    assert data.loc[2, "clipped"] == pytest.approx(60) and data.loc[2, "mean_norm"] == pytest.approx(5)


def test_table_to_read():
    _, shown = made(paper=PAPER)
    first, second = ("{:.2f} [{:.2f}, {:.2f}]".format(*mean_interval(100.0 * right(*of))) for of in SHARES)
    assert list(shown.loc[1]) == ["cifar10", "SGD", "", "2", "", first, "2", "81.30", "", ""]
    assert list(shown.loc[2]) == ["cifar10", "DP-SGD", "σ = 1, C = 3", "2", "", second, "2", "", "60.0", "5"]
    assert shown.loc[0, "accuracy in % [95 %]"] == "52.00"
    assert shown.loc[3, "stopped at step"] == "25 to 50"
    assert shown.loc[3, "setting"] == "C = 1, stopped at 60 %" and shown.loc[3, "clipped in %"] == "100.0"


def test_given_weights_and_temperatures_appear():
    more = runs("sgd", {"algorithm": "sgd", "temperature": 2.0}, {"weights": "a.pt", "name": "mine", "label": "Mine"})
    arrays = {key: of for run in more for key, of in measured(run.name, 0.7).items()}
    data, shown = made(runs=more, arrays=arrays, trained=(training("sgd", 0),), pretrained=())
    assert list(shown["algorithm"]) == ["SGD", "SGD", "given weights"]
    assert list(shown["setting"]) == ["", "temperature = 2", "Mine"] and list(shown["epochs"]) == ["2", "2", ""]
    assert list(data["mean"]) == pytest.approx([70, 70, 70])


def test_without_dpsgd_and_pretraining():
    data, shown = made(arrays=MNIST, pretrained=())
    assert list(shown["seeds"]) == ["1"] and data["paper"].isna().all()
    head = "accuracy in % [95 %, images only]"
    assert list(shown.columns) == ["dataset", "algorithm", "setting", "epochs", head, "seeds"]


def test_a_file_without_the_columns_is_named():
    with pytest.raises(UserError, match=r"accuracy.csv: has columns run, sgd; needs dataset, run, accuracy"):
        made(paper=pd.DataFrame({"run": ["x"], "sgd": [1.0]}))
