"""The privacy table from made-up records."""

import math

import pandas as pd
from makers import runs

from dprobust.displays.privacy.display import Display
from dprobust.displays.privacy.show import show
from dprobust.privacy import account, shuffle_epsilon
from dprobust.rendering import html, latex
from dprobust.showing import Given

DELTAS = (1e-6, 1e-5)


def accounted(run, multiplier, sampling="poisson", dataset="mnist"):
    mechanism = {"sampling": sampling, "noise_multiplier": multiplier, "sample_rate": 0.125, "steps": 8, "epochs": 1}
    rows = account(**mechanism, deltas=DELTAS)
    return [{"dataset": dataset, "run": run} | mechanism | row for row in rows]


def made(entries, multipliers):
    shown = runs(*entries)
    pairs = ((run, told if isinstance(told, tuple) else (told,)) for run, told in multipliers.items())
    rows = [row for run, told in pairs for row in accounted(run, *told)]
    given = Given(runs=tuple(shown), datasets=("mnist",) * len(shown), privacy=pd.DataFrame(rows))
    data, table = show(given, Display(shows="privacy"))
    return data, table


EPSILONS = [f"ε at δ = {delta}, {name}" for delta in ("1e-06", "1e-05") for name in ("RDP", "PRV")]


def test_a_row_a_run_and_a_column_a_delta_and_accountant():
    data, table = made(["sgd", {"sigma": 1.3, "clip": [1.0, 3.0]}], {"sgd": None} | dict.fromkeys(PRIVATE, 1.3))
    assert list(table["algorithm"]) == ["SGD", "DP-SGD", "DP-SGD"]
    assert [column for column in table if column.startswith("ε")] == EPSILONS
    assert list(table.loc[0, EPSILONS]) == ["∞"] * 4 and table.loc[0, "guarantee"].startswith("none: ")
    prv = {row["delta"]: row["epsilon"] for row in accounted("", 1.3) if row["accountant"] == "prv"}
    assert table.loc[1, "ε at δ = 1e-06, PRV"] == f"{prv[1e-6]:.2f}"
    assert list(table["noise on the sum"]) == ["0", "1.3", "3.9"] and list(table["noise / C"]) == ["", "1.3", "1.3"]
    assert "adding or removing one example" in table.loc[1, "guarantee"] and "Poisson" in table.loc[1, "guarantee"]
    assert len(data) == 2 + 4 + 4 and data["run"].nunique() == 3


PRIVATE = ("dpsgd_sigma=1.3_clip=1.0", "dpsgd_sigma=1.3_clip=3.0")


def test_an_epsilon_that_was_asked_for_shows_the_noise_found():
    (run,) = runs({"epsilon": 2.0, "clip": 0.5})
    _, table = made([{"epsilon": 2.0, "clip": 0.5}], {run.name: 1.44})
    assert table.loc[0, "noise / C"] == "1.44" and table.loc[0, "noise on the sum"] == "0.72"
    assert table.loc[0, "algorithm"] == "DP-SGD"


def test_clipping_without_noise_and_noise_without_clipping_guarantee_nothing():
    entries = [{"algorithm": "sgd", "clip": 1.0}, {"algorithm": "sgd", "sigma": 0.7}]
    clipped, noisy = (run.name for run in runs(*entries))
    data, table = made(entries, {clipped: 0.0, noisy: None})
    assert list(table["algorithm"]) == ["SGD", "SGD"] and (data["epsilon"] == math.inf).all()
    assert list(table["noise on the sum"]) == ["0", "0.7"] and list(table["noise / C"]) == ["0", ""]
    assert list(table["ε"]) == ["∞", "∞"] and table["guarantee"].str.startswith("none: ").all()


def test_given_weights_are_as_their_maker_states():
    weights = [
        {"weights": "a.pt", "name": "a", "privacy": {"epsilon": 3.0, "delta": 1e-5}},
        {"weights": "b.pt", "name": "b", "privacy": "none"},
        {"weights": "c.pt", "name": "c"},
    ]
    data, table = made([{"sigma": 1.3, "clip": 1.0}, *weights], {PRIVATE[0]: 1.3})
    stated = "ε at δ = 1e-05, stated"
    assert list(table[stated]) == ["", "3.00", "", ""]
    assert list(table.loc[1, EPSILONS]) == [""] * 4  # what they state is no accountant's
    assert list(table.loc[2, EPSILONS]) == ["∞"] * 4 and list(table.loc[3, EPSILONS]) == ["not known"] * 4
    assert list(table["algorithm"][1:]) == ["given weights"] * 3 and list(table["steps"][1:]) == [""] * 3
    rows = data.set_index("run")
    assert rows.loc["weights=a", ["epsilon", "delta", "accountant"]].tolist() == [3.0, 1e-5, "stated"]
    assert rows.loc["weights=b", "epsilon"] == math.inf and math.isnan(rows.loc["weights=c", "epsilon"])


def test_only_given_weights():
    _, table = made([{"weights": "c.pt", "name": "c"}], {})
    assert table.loc[0, "ε"] == "not known" and table.loc[0, "setting"] == "c"


def test_a_run_with_a_temperature_is_its_bases():
    entry = {"sigma": 1.3, "clip": 1.0, "temperature": [1.0, 2.0]}
    data, table = made([entry], {PRIVATE[0]: 1.3})
    assert list(data["run"].unique()) == [PRIVATE[0], f"{PRIVATE[0]}_temperature=2.0"]
    assert table.loc[0, EPSILONS].equals(table.loc[1, EPSILONS].rename(0)) and "T" not in table.loc[0, "setting"]
    assert table.loc[1, "setting"] == "σ = 1.3, C = 1, temperature = 2"


def test_another_sampler_has_another_guarantee():
    entries = ["sgd", {"sigma": 1.3, "clip": 1.0}, {"sigma": 1.3, "clip": 1.0, "sampling": "shuffle"}]
    shuffled = runs(*entries)[2].name
    data, table = made(entries, {"sgd": None, PRIVATE[0]: 1.3, shuffled: (1.3, "shuffle")})
    bound = "ε at δ = 1e-06, GDP bound"
    assert list(table["sampling"]) == ["poisson", "poisson", "shuffle"]
    assert list(table.loc[2, EPSILONS]) == [""] * 4 and table.loc[1, bound] == "" and table.loc[0, bound] == "∞"
    assert table.loc[2, bound] == f"{shuffle_epsilon(1.3, 1, 1e-6):.2f}"
    assert "bound for shuffled batches of fixed size" in table.loc[2, "guarantee"]
    assert "nan" not in html(table).lower()
    text = latex(table, "Caption.", "tab:x")
    assert r"\toprule" in text and r"$\varepsilon$ at $\delta$" in text and text.isascii()
