import pandas as pd
import pytest

from dprobust.corruptions import NAMES
from dprobust.study import Run
from dprobust.tables import corruptions as table


def test_table_2():
    runs = [Run(), Run(1.3, 1.0)]
    rows = [
        {"run": run.name, "seed": seed, "metric": "accuracy", "corruption": name, "source": "zenodo", "value": value}
        for run, clean in zip(runs, (0.9, 0.7), strict=True)
        for seed in (0, 1)
        for name, value in [("identity", 0.99), *((n, clean + 0.02 * seed) for n in NAMES)]
    ]
    paper = {run.name: dict.fromkeys(NAMES, value) for run, value in zip(runs, (90.0, 75.0), strict=True)}
    paper["sgd"]["fog"] = 59.0
    data, shown = table.make(pd.DataFrame(rows), runs, {"paper": paper})
    assert list(shown["corruption"]) == ["identity", *NAMES, "average of 31", "average of the official 15"]
    fog = data[(data["corruption"] == "fog") & (data["run"] == "sgd")].iloc[0]
    assert tuple(fog[["mean", "min", "max"]]) == pytest.approx((91, 90, 92)) and fog["seeds"] == 2
    read = shown.set_index("corruption")
    assert read.loc["fog", "SGD"] == "91.00 (59.00)" and read.loc["fog", "difference"] == "20.00 (-16.00)"
    assert read.loc["average of 31", "SGD"] == "91.00 (89.00)"
    assert read.loc["average of the official 15", "SGD"] == f"91.00 ({(14 * 90 + 59) / 15:.2f})"
    assert read.loc["identity", "SGD"] == "99.00"
