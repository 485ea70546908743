"""The privacy table from made-up records."""

import math

import pandas as pd
from makers import runs

from dprobust.displays.privacy.display import Display
from dprobust.displays.privacy.show import show
from dprobust.privacy import account, epsilon, shuffle_epsilon
from dprobust.rendering import html, latex
from dprobust.showing import Given

DELTAS = (1e-6, 1e-5)


def accounted(run, multiplier, sampling="poisson", cap=None, examples=None, dataset="mnist"):
    mechanism = {"sampling": sampling, "noise_multiplier": multiplier, "sample_rate": 0.125, "steps": 8, "epochs": 1}
    if cap:
        mechanism |= {"batch_cap": cap, "examples": examples}
    rows = account(**mechanism, deltas=DELTAS)
    return [{"dataset": dataset, "run": run} | mechanism | row for row in rows]


def made(entries, multipliers):
    shown = runs(*entries)
    pairs = ((run, told if isinstance(told, tuple) else (told,)) for run, told in multipliers.items())
    rows = [row for run, told in pairs for row in accounted(run, *told)]
    given = Given(runs=tuple(shown), datasets=("mnist",) * len(shown), privacy=pd.DataFrame(rows))
    data, table = show(given, Display(shows="privacy"))
    return data, table


EPSILONS = ["ε at δ = 1e-06", "ε at δ = 1e-05"]


def test_a_row_a_run_and_adjacency_and_a_column_a_delta():
    data, table = made(["sgd", {"sigma": 1.3, "clip": [1.0, 3.0]}], {"sgd": None} | dict.fromkeys(PRIVATE, 1.3))
    assert list(table["algorithm"]) == ["SGD"] + ["DP-SGD"] * 4
    assert list(table["neighbours"]) == ["", *["add or remove one", "replace one"] * 2]
    assert [column for column in table if column.startswith("ε")] == EPSILONS
    assert list(table.loc[0, EPSILONS]) == ["∞"] * 2 and table.loc[0, "guarantee"].startswith("none: ")
    assert list(table["accountant"]) == ["", *["PLD"] * 4]
    for column, delta in zip(EPSILONS, DELTAS, strict=True):
        assert table.loc[1, column] == f"{epsilon(1.3, 0.125, 8, delta):.2f}"
    others = [f"{name.upper()} {epsilon(1.3, 0.125, 8, 1e-6, name):.2f}" for name in ("prv", "rdp")]
    assert table.loc[1, "other accountants"] == ", ".join(others) and table.loc[2, "other accountants"] == ""
    assert list(table["noise on the sum"]) == ["0", "1.3", "1.3", "3.9", "3.9"]
    assert list(table["noise / C"]) == ["", *["1.3"] * 4] and set(table.loc[1:, "sampling"]) == {"Poisson"}
    assert "adding or removing one example" in table.loc[1, "guarantee"] and "Poisson" in table.loc[1, "guarantee"]
    assert "replacing one example" in table.loc[2, "guarantee"]
    assert list(table.columns[3:7]) == ["neighbours", "accountant", *EPSILONS]
    assert list(table.columns[-2:]) == ["other accountants", "guarantee"]
    assert len(data) == 2 + 8 + 8 and data["run"].nunique() == 3


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
    assert (table[EPSILONS] == "∞").all(axis=None) and "other accountants" not in table
    assert (table["accountant"] == "").all() and table["guarantee"].str.startswith("none: ").all()


def test_given_weights_are_as_their_maker_states():
    weights = [
        {"weights": "a.pt", "name": "a", "privacy": {"epsilon": 3.0, "delta": 1e-5}},
        {"weights": "b.pt", "name": "b", "privacy": "none"},
        {"weights": "c.pt", "name": "c"},
    ]
    data, table = made([{"sigma": 1.3, "clip": 1.0}, *weights], {PRIVATE[0]: 1.3})
    assert list(table.loc[2, EPSILONS]) == ["", "3.00"] and table.loc[2, "accountant"] == "its maker"
    assert list(table.loc[3, EPSILONS]) == ["∞"] * 2 and list(table.loc[4, EPSILONS]) == ["not known"] * 2
    assert list(table["algorithm"][2:]) == ["given weights"] * 3 and list(table["steps"][2:]) == [""] * 3
    assert list(table["neighbours"][2:]) == ["not known", "", "not known"]
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
    assert table.loc[0, EPSILONS].equals(table.loc[2, EPSILONS].rename(0)) and "T" not in table.loc[0, "setting"]
    assert table.loc[2, "setting"] == "σ = 1.3, C = 1, temperature = 2"


def test_another_sampler_has_another_guarantee():
    entry = {"sigma": 1.3, "clip": 1.0}
    entries = ["sgd", entry, *(entry | {"sampling": s} for s in ("shuffle", "balls_in_bins", "truncated_poisson"))]
    names = [run.name for run in runs(*entries)]
    multipliers = [None, 1.3, (1.3, "shuffle"), (1.3, "balls_in_bins"), (1.3, "truncated_poisson", 40, 256)]
    data, table = made(entries, dict(zip(names, multipliers, strict=True)))
    capped = "Poisson, at most 40"
    drawn = ["Poisson", "Poisson", "shuffled", "shuffled", "balls in bins", capped, capped]
    assert list(table["sampling"][1:]) == drawn
    adding, replacing = "add or remove one", "replace one"
    assert list(table["neighbours"]) == ["", adding, replacing, replacing, "zero out one", adding, adding, replacing]
    assert list(table["accountant"]) == ["", "PLD", "PLD", "Gaussian DP", "Gaussian DP", "PLD", "PLD", "PLD"]
    assert table.loc[3, EPSILONS[0]] == f"{shuffle_epsilon(1.3, 1, 1e-6):.2f}"
    assert table.loc[4, EPSILONS[0]] == f"{shuffle_epsilon(1.3, 1, 1e-6, 'zero out one'):.2f}"
    assert "bound for shuffled batches of fixed size" in table.loc[3, "guarantee"]
    assert Given(privacy=data).epsilons[names[2]] == shuffle_epsilon(1.3, 1, 1e-6)  # what legends show
    assert "nan" not in html(table).lower()
    text = latex(table, "Caption.", "tab:x")
    assert r"\toprule" in text and r"$\varepsilon$ at $\delta$" in text and text.isascii()
