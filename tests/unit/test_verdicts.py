"""The rule, verdict by verdict, and from hand-made records to the table."""

import copy
import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import ROOT

from dprobust.claims import Stated, read
from dprobust.displays.claims.show import digits, show
from dprobust.registry import Registry
from dprobust.schema import ConfigError
from dprobust.showing import Given
from dprobust.statistics import Estimate
from dprobust.study import Study
from dprobust.verdicts import DIRECTION, NOT, REPRODUCED, UNDECIDED, overall, p_value, seeds_to_decide, verdict

PAPER = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def found(centre, of_seeds=0.25, seeds=5, of_images=0.0):
    """The standard error is 0.22 and the interval reaches 0.62; that of one run 1.52."""
    return Estimate(centre, of_seeds, of_images, seeds, 1000, 999.0)


CASES = {
    "holds, and the value fits": (found(2.0), {"direction": "above", "value": 3.0}, REPRODUCED),
    "holds, and no value is stated": (found(2.0), {"direction": "above"}, REPRODUCED),
    "holds, and the value does not fit": (found(2.0), {"direction": "above", "value": 4.0}, DIRECTION),
    "a misprint is no value": (found(2.0), {"direction": "above", "value": 4.0, "misprint": "90"}, REPRODUCED),
    "the opposite": (found(-2.0), {"direction": "above", "value": -2.0}, NOT),
    "below": (found(-2.0), {"direction": "below", "value": -2.0}, REPRODUCED),
    "too small to matter": (found(1.0), {"direction": "above", "margin": 2.0}, NOT),
    "not so small": (found(2.0), {"direction": "above", "margin": 2.0}, REPRODUCED),
    "open": (found(0.3), {"direction": "above", "value": 0.3}, UNDECIDED),
    "of another null": (found(2.0), {"direction": "above", "than": 3.0}, NOT),
    "flat": (found(0.3), {"direction": "within", "margin": 1.0}, REPRODUCED),
    "not flat": (found(2.0), {"direction": "within", "margin": 1.0}, NOT),
    "perhaps flat": (found(0.6), {"direction": "within", "margin": 1.0}, UNDECIDED),
    "a value alone": (found(96.0), {"value": 96.5, "margin": 2.0}, REPRODUCED),
    "another value": (found(96.0), {"value": 98.5, "margin": 2.0}, NOT),
    "any value would fit": (found(96.0), {"value": 96.5, "margin": 1.0}, UNDECIDED),
    "one seed": (found(20.0, math.nan, 1, 0.01), {"direction": "above"}, UNDECIDED),
    "nothing measured": (found(math.nan), {"direction": "above"}, UNDECIDED),
    "exact": (Estimate(1.9), {"direction": "below", "than": 5.0}, REPRODUCED),
    "exact and wrong": (Estimate(5.0), {"direction": "below", "than": 5.0}, NOT),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rule(name):
    estimate, stated, expected = CASES[name]
    assert verdict(estimate, Stated(**stated)) == expected


def test_levels_move_verdicts():
    near = found(0.65)
    assert [verdict(near, Stated(direction="above"), level) for level in (0.90, 0.95, 0.99)] == [
        *(REPRODUCED, REPRODUCED, UNDECIDED)
    ]


def test_a_claim_is_as_good_as_its_weakest_part():
    assert overall([REPRODUCED, DIRECTION]) == DIRECTION
    assert overall([REPRODUCED, UNDECIDED, DIRECTION]) == UNDECIDED
    assert overall([UNDECIDED, NOT]) == NOT and overall([REPRODUCED]) == REPRODUCED


def test_p_speaks_for_the_direction():
    above, below = (p_value(found(0.5), Stated(direction=d)) for d in ("above", "below"))
    assert above == pytest.approx(0.0889, abs=1e-3) and below == pytest.approx(1.0)
    flat = Stated(direction="within", margin=1.0)
    assert p_value(found(0.5), flat) == pytest.approx(above, abs=1e-12)
    assert math.isnan(p_value(Estimate(1.0), flat)) and math.isnan(p_value(found(1.0), Stated(value=1.0, margin=1.0)))


def test_seeds_that_would_decide():
    """t quantile times 0.5 / sqrt(S) falls below 0.3 at S = 14: 0.289; at 13 it is 0.302."""
    above = Stated(direction="above")
    assert seeds_to_decide(found(0.3), above) == 14
    assert seeds_to_decide(found(0.3, of_images=0.04), above) is None  # images alone leave 0.39
    assert seeds_to_decide(found(0.3, math.nan, 1), above) is None


# -- from records ---------------------------------------------------------------------------------------------------


def study(claims=("claims/paper.yaml",), seeds=(0, 1, 2, 3, 4), **more):
    config = copy.deepcopy(PAPER)
    config |= {"claims": {"files": list(claims)} | more, "seeds": list(seeds)}
    return Study(config)


def test_the_papers_claims_need_no_training_that_figures_do_not():
    mine, bare = study(), study(claims=())
    assert "claims" not in bare.displays
    assert {name: set(mine.trained(name)) for name in mine.datasets} == {
        name: set(bare.trained(name)) for name in bare.datasets
    }
    display = mine.displays["claims"]
    claims = display.settings.claims
    assert [claim.id for claim in claims] == [f"C{i:02d}" for i in range(1, 21)]
    assert not any(claim.missing for claim in claims) and all(claim.shown in mine.displays for claim in claims)
    needed = {(metric, dataset, run.name) for metric, dataset, run in display.measured}
    assert len(needed) == len(display.measured)
    shown = [d for d in mine.displays.values() if d.section != "claims"]
    assert needed <= {(metric, dataset, run.name) for d in shown for metric, dataset, run in d.measured}


OWN = """
source: mine
claims:
  - id: A
    says: Private training costs robustness.
    runs: [sgd, {sigma: 0.5, clip: 4.0}]
    parts:
      - {quantity: {name: fgsm, eps: 0.1}, strongest: {loss: worst}, direction: above, value: 40.0}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text=OWN, name="own.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


def test_claims_decide_what_is_trained_unless_they_may_not(own):
    mine = study([own()])
    assert "dpsgd_sigma=0.5_clip=4.0" in mine.trained("mnist")
    assert len(mine.displays["claims"].measured) == 2
    only = study([own()], measured_only=True)
    assert "dpsgd_sigma=0.5_clip=4.0" not in only.trained("mnist")
    (claim,) = only.displays["claims"].settings.claims
    assert claim.missing == "no fgsm of dpsgd_sigma=0.5_clip=4.0 in this study"


def test_a_trend_may_do_with_the_runs_that_are_there(own):
    text = OWN.replace("[sgd, {sigma: 0.5, clip: 4.0}]", "[{sigma: [0.5, 0.7, 2.0], clip: 1.0}]")
    text = text.replace("eps: 0.1}", "eps: 0.1, compare: trend, along: sigma}")
    (claim,) = study([own(text)], measured_only=True).displays["claims"].settings.claims
    assert claim.parts[0].paper.runs == ["dpsgd_sigma=0.7_clip=1.0", "dpsgd_sigma=2.0_clip=1.0"]


BAD = {
    "no file": (None, "claims: no file own.yaml here, in an extension or in the project"),
    "not YAML": ("source: [", "claims: own.yaml: while parsing"),
    "nothing": ("", "claims: own.yaml: (top level): found null"),
    "key": (OWN.replace("says:", "say:"), "claims[0]: unknown key 'say'; did you mean 'says'?"),
    "quantity": (OWN.replace("name: fgsm", "name: fgsn"), "expected one of accuracy, "),
    "did you mean": (OWN.replace("name: fgsm", "name: fgsn"), "; did you mean 'fgsm'?"),
    "argument": (OWN.replace("eps: 0.1", "epsilon: 0.1"), "quantity: unknown key 'epsilon'"),
    "eps": (OWN.replace("eps: 0.1", "eps: 0.123"), "A: parts[0].quantity: eps: 0.123 is not measured"),
    "strongest": (OWN.replace("loss: worst", "los: worst"), "A: parts[0].strongest: unknown key 'los'; did you mean"),
    "another quantity": (OWN.replace("loss: worst", "name: pdg"), "A: parts[0].strongest.name: 'pdg' is not among"),
    "runs": (OWN.replace("sigma: 0.5, clip", "sigma: -1, clip"), "sigma: found -1, must be at least 0"),
    "one run": (OWN.replace("sgd, {", "{"), "A: parts[0].quantity: compare: gap is of 2 run(s), there are 1"),
    "nothing stated": (OWN.replace("direction: above, value: 40.0", "value: null"), "states nothing"),
    "no margin": (OWN.replace("direction: above, ", ""), "margin: needed for a value alone"),
    "twice": (OWN + OWN.partition("claims:")[2].lstrip("\n"), "claims: own.yaml: A stands there twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_in_one_line(own, name):
    text, message = BAD[name]
    if text is not None:
        own(text)
    with pytest.raises(ConfigError) as error:
        study(["own.yaml"])
    assert message in str(error.value) and "own.yaml" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 420


def test_bad_keys_of_claims():
    with pytest.raises(ConfigError, match=r"claims: unknown key 'file'; did you mean 'files'\?"):
        study(file=[])
    config = copy.deepcopy(PAPER) | {"claims": ["claims/paper.yaml"]}
    assert Study(config).settings.claims.files == ["claims/paper.yaml"]
    assert "claims" not in Study(config | {"claims": None}).displays


def given(mine, gap, noise=1.0, n=2000):
    """Records of FGSM: SGD right on 80 % of images, the private run on `gap` percent less; seeds differ a little."""
    display, generator, arrays = mine.displays["claims"], np.random.default_rng(1), {}
    hard = generator.uniform(0, 100, n)
    for metric, dataset, run in display.measured:
        for seed in mine.seeds_of(run):
            share = 80 - (gap if run.private else 0) + noise * generator.normal()
            fails = np.stack([hard > 99, hard + generator.normal(size=n) > share])
            predicted = np.stack([fails, fails, fails]).astype(np.uint8)
            about = {"loss": np.array(["ce", "ce_stable", "margin"]), "eps": np.array([0.0, 0.1])}
            more = {"index": np.arange(n), "label": np.zeros(n, np.uint8), "predicted": predicted}
            arrays[metric, dataset, run.name, seed] = about | more
    runs, datasets = tuple(run for _, run in display.runs), tuple(dataset for dataset, _ in display.runs)
    return Given(runs=runs, datasets=datasets, arrays=arrays, privacy=pd.DataFrame(), note="a note")


def test_from_records_to_the_table(own):
    mine = study([own()])
    settings = mine.displays["claims"].settings
    table, texts = show(given(mine, 40), settings)
    (row,) = table.to_dict("records")
    assert row["verdict"] == row["verdict_strongest"] == REPRODUCED and row["seeds"] == 5
    assert float(row["low"]) < 40 < float(row["high"]) and float(row["one_run_low"]) < float(row["low"])
    assert row["p"] == row["holm"] < 0.001 and row["without_seed"].count(REPRODUCED) == 5
    whole = json.loads(texts["json"])
    assert whole["claims"][0]["measured"][0]["each"] == pytest.approx([40] * 5, abs=4)
    assert whole["summary"][0] == "Verdicts on 1 claims, as the paper measures: 1 reproduced."
    assert "at 90 % no verdicts change and at 99 % no verdicts change" in texts["md"]
    assert "When a seed is left out, for at least one of the 5 seeds no verdicts change." in texts["md"]
    assert texts["md"].count("\n|") == 2 and "> 0, 40" in texts["md"] and "a note" in texts["html"]
    assert show(given(mine, 40), settings)[1] == texts
    assert show(given(mine, 20), settings)[0]["verdict"].item() == DIRECTION
    assert show(given(mine, -20), settings)[0]["verdict"].item() == NOT
    open_ = show(given(mine, 0.5, noise=2.0), settings)[0].iloc[0]
    assert open_["verdict"] == UNDECIDED and (open_["seeds_that_would_decide"] or "").strip()


def test_one_seed_says_so(own):
    mine = study([own()], seeds=(0,))
    table, texts = show(given(mine, 40), mine.displays["claims"].settings)
    assert table["verdict"].item() == UNDECIDED and table["seeds_that_would_decide"].item() == "2 or more"
    assert "There is one seed: intervals are over images only" in texts["md"]
    assert float(table["low"].item()) > 30 and table["one_run_low"].item() == "nan"


def test_what_is_not_measured_is_listed(own):
    mine = study([own()], measured_only=True)
    display = mine.displays["claims"]
    table, texts = show(Given(), display.settings)
    assert table["verdict"].item() == "not measured here" and not display.measured and not display.runs
    assert "not measured here: no fgsm of dpsgd_sigma=0.5_clip=4.0 in this study" in texts["md"]
    assert table["paper"].item() == "> 0, 40"


def test_digits():
    found = [digits(value) for value in (0.1234, 15.44, 1234.4, 1e-5, 0.0, math.inf, math.nan, 99.14)]
    assert found == ["0.123", "15.4", "1230", "1.00e-05", "0", "∞", "?", "99.1"]


def test_every_claim_of_the_paper_is_told():
    told = read("claims/paper.yaml", Registry()).claims
    assert len({claim.says for claim in told}) == 20
