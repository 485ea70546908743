"""Membership inference against brute force, closed forms of trade-off functions, and a network that remembers."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from makers import runs
from scipy import stats
from torch import nn

from dprobust import arrays, seeds, training
from dprobust.arrays import Split
from dprobust.measuring import Images
from dprobust.membership import auc, ceilings, true_positives, true_positives_interval
from dprobust.metrics.membership import measure as metric
from dprobust.metrics.membership.display import Display
from dprobust.metrics.membership.settings import Metric
from dprobust.metrics.membership.show import _roc, show
from dprobust.models import networks
from dprobust.recipe import Stop, Training
from dprobust.showing import Given
from dprobust.stages.measure import measure as stage

FPR = np.array([1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9])


def scores(seed, n=40, k=60, shift=1.0, digits=1):
    random = np.random.default_rng(seed)  # rounded, so that there are ties
    return random.normal(shift, 1, n).round(digits), random.normal(0, 1, k).round(digits)


def test_auc_is_the_share_of_pairs_in_order():
    for seed in range(3):
        members, others = scores(seed)
        pairs = (members[:, None] > others).mean() + (members[:, None] == others).mean() / 2
        assert auc(members, others).value == pytest.approx(pairs, rel=1e-12)
    assert auc(np.ones(5), np.zeros(5)) == (1, 1, 1) and auc(np.zeros(5), np.zeros(4)).value == 0.5


def test_the_interval_of_auc_covers():
    true = stats.norm.cdf(0.5 / math.sqrt(2))
    found = [auc(*scores(seed, 80, 60, 0.5, 12)) for seed in range(600)]
    covered = np.mean([estimate.low <= true <= estimate.high for estimate in found])
    assert 0.92 < covered < 0.98
    assert all(estimate.low < estimate.value < estimate.high for estimate in found)


def test_true_positives_are_those_of_the_lowest_threshold_allowed():
    members, others = scores(1)
    for fpr in (0.0, 0.01, 0.05, 0.3, 1.0):
        thresholds = [-np.inf, *np.concatenate([members, others])]
        allowed = [(members > t).mean() for t in thresholds if (others > t).mean() <= fpr + 1e-12]
        assert true_positives(members, others, [fpr])[0] == pytest.approx(max(allowed))
    assert true_positives(np.arange(10), np.arange(10), [0.3])[0] == pytest.approx(0.3)  # 0.3 * 10 is no less than 3


def test_the_interval_of_true_positives_covers():
    true = stats.norm.sf(stats.norm.isf(0.1) - 1)
    found = [true_positives_interval(*scores(seed, 300, 300, 1.0, 12), [0.1])[0] for seed in range(40)]
    assert np.mean([estimate.low <= true <= estimate.high for estimate in found]) > 0.85
    assert true_positives_interval(*scores(0), [0.1]) == true_positives_interval(*scores(0), [0.1])


def test_bad_scores():
    for bad in ([0.1], [0.1, np.nan], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="scores must be"):
            auc(np.array(bad), np.zeros(3))


# Ceilings.


def mechanism(**changes):
    told = {"sampling": "poisson", "noise_multiplier": 1.3, "sample_rate": 256 / 60000, "steps": 11700, "epochs": 50}
    return told | changes


def test_the_ceiling_of_gaussian_mechanisms_is_just_above_their_trade_off():
    found = ceilings(mechanism(sample_rate=1.0, steps=4, noise_multiplier=2.0), FPR)
    exact = stats.norm.sf(stats.norm.isf(FPR) - 1)  # mu = sqrt(4) / 2
    assert (found["added"] >= exact).all() and (found["added"] <= 1.06 * exact).all()
    twice = stats.norm.sf(stats.norm.isf(FPR) - 2)  # leaving out and adding is Gaussian DP with twice the mu
    assert (found["replaced"] >= twice).all() and (found["replaced"] <= 1.12 * twice).all()


def test_the_ceiling_of_a_subsampled_step_is_just_above_the_best_attack():
    q, sigma = 0.2, 0.8
    found = ceilings(mechanism(sample_rate=q, steps=1, noise_multiplier=sigma), FPR)["added"]
    at = np.linspace(-8, 8, 40001)
    out, member = stats.norm.sf(at / sigma), (1 - q) * stats.norm.sf(at / sigma) + q * stats.norm.sf((at - 1) / sigma)
    best = np.interp(FPR, out[::-1], member[::-1])
    best = np.maximum(best, np.interp(FPR, 1 - member, 1 - out))  # and of telling the ones left out
    assert (found >= best * (1 - 1e-3)).all() and (found[1:] <= 1.15 * best[1:]).all()


@pytest.mark.parametrize(("sigma", "stated"), [(1.3, 0.0038), (2.0, 0.0022)])
def test_the_ceiling_at_the_papers_setting_is_that_of_privacy_loss_distributions(sigma, stated):
    """`stated`: from the privacy loss distributions of dp-accounting 0.6."""
    found = ceilings(mechanism(noise_multiplier=sigma), [1e-3])["added"][0]
    assert found == pytest.approx(stated, rel=0.04)


def test_ceilings_of_shuffled_batches_and_of_nothing_proved():
    found = ceilings(mechanism(sampling="shuffle", noise_multiplier=10.0, epochs=25), FPR)
    assert list(found) == ["replaced"]
    np.testing.assert_allclose(found["replaced"], stats.norm.sf(stats.norm.isf(FPR) - 1))
    for changes in ({"noise_multiplier": 0.0}, {"noise_multiplier": None}, {"sampling": "other"}):
        assert ceilings(mechanism(**changes), FPR) == {}
    weak = ceilings(mechanism(noise_multiplier=0.2, sample_rate=1.0, steps=1), FPR)
    assert (weak["added"] <= 1).all() and (weak["replaced"] >= weak["added"]).all() and (weak["added"] >= FPR).all()


# The metric.


class Remembers(nn.Module):
    """The more confident, the brighter the first pixel; the label is in the second."""

    def forward(self, x):
        right = nn.functional.one_hot((x[:, 0, 0, 1] * 255).round().long(), 3)
        return right * (1 + 10 * x[:, 0, 0, 0, None])


def split(n, bright, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    images = random.integers(0, 256, (n, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = bright, labels
    return Split(images, labels, 3)


def given(test, train, trained=None):
    n = len(test)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    x, y = torch.from_numpy(test.images).float() / 255, torch.from_numpy(test.labels)
    return Images(x, y, torch.arange(n) * 2, order, {"dataset": "own"}, {}, trained, lambda: train)


def record(settings, n):
    about = {"dataset": "own", "run": "sgd", "seed": "3"}
    mechanism = settings.mechanism(settings.trained_on(n))
    return about | {"settings": {"training": settings.plain()}, "mechanism": mechanism, "stream": ["3", "names"]}


def table(found):
    return pd.DataFrame(found.rows)


def test_a_network_that_remembers_is_found_out_and_one_that_does_not_is_not():
    random = np.random.default_rng(0)
    same = split(300, random.integers(0, 256, 300)), split(500, random.integers(0, 256, 500), 1)
    for (test, train), areas in (((split(300, 0), split(500, 200, 1)), (1, 1)), (same, (0.42, 0.58))):
        found = metric.measure(Remembers(), given(test, train), Metric())
        rows = table(found)
        area = rows[rows["metric"] == "auc"].iloc[0]
        assert areas[0] <= area["value"] <= areas[1] and area["low"] <= area["value"] <= area["high"]
        assert area["n"] == 300 and len(found.arrays["member_loss"]) == 300 and found.arrays["other"].all()
        tpr = true_positives(-found.arrays["member_loss"], -found.arrays["loss"], [0.001, 0.01, 0.1])
        assert rows[rows["metric"] == "tpr"]["value"].tolist() == tpr.tolist()
        assert "ceiling" not in set(rows["metric"])


def test_members_are_training_images_and_as_many_as_the_others():
    test, train = split(60, 10), split(20, 100, 1)
    train.images[:, 0, 3, 3] = np.arange(20)
    found = metric.measure(Remembers(), given(test, train), Metric())
    assert found.arrays["member"].tolist() == list(range(20)) and found.arrays["other"].sum() == 20
    images = given(test, train)
    assert set(np.flatnonzero(found.arrays["other"])) == set(images.order[:20].tolist())
    fewer = metric.measure(Remembers(), given(split(5, 10), train), Metric())
    places = fewer.arrays["member"]
    assert len(set(places)) == 5 and (np.diff(places) > 0).all()
    expected = torch.from_numpy(train.images[places]).float() / 255
    logits = Remembers()(expected).double()
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels[places]), reduction="none")
    np.testing.assert_allclose(fewer.arrays["member_loss"], loss.numpy(), rtol=1e-6)


def test_what_was_held_out_for_a_stop_is_no_member():
    settings = Training(epochs=1, batch_size=5, stop=Stop(accuracy=0.5, holdout=8, every=1))
    train = split(20, 100, 1)
    train.images[:, 0, 3, 3] = np.arange(20)
    found = metric.measure(Remembers(), given(split(60, 10), train, record(settings, 20)), Metric())
    trained_on, held = training.hold_out(train, settings, ("3", "names"))
    assert found.arrays["member"].tolist() == trained_on.images[:, 0, 3, 3].tolist() and len(held) == 8


def test_mislabelled_examples_are_told_from_those_left_out():
    """A network that remembers which it has seen: the class of an image is the wrong one where it was trained on."""
    settings = Training(epochs=1, batch_size=5, mislabelled=12, stop=Stop(accuracy=0.5, holdout=8, every=1))
    train = split(60, 100, 1)
    train.images[:, 0, 3, 3] = np.arange(60)
    found = training.mislabel(train, settings, ("3", "names"))
    for place in found.included:
        train.images[place, 0, 0, 1] = found.labels[place]
    rows = metric.measure(Remembers(), given(split(60, 10), train, record(settings, 60)), Metric())
    told = table(rows)
    area = told[(told["metric"] == "auc") & (told["game"] == "mislabelled")].iloc[0]
    assert area["value"] == 1 and area["n"] == 12 and len(rows.arrays["mislabelled_other_loss"]) == 12
    held = training.hold_out(found.data, settings, ("3", "names"))[1].images[:, 0, 3, 3]
    own = set(range(60)) - {*found.included.tolist(), *found.left_out.tolist(), *held.tolist()}
    assert rows.arrays["member"].tolist() == sorted(own) and len(held) == 8


def test_a_private_run_has_ceilings():
    settings = Training(epochs=1, batch_size=5, sigma=2.0, clip=1.0, sampling="poisson")
    rows = table(metric.measure(Remembers(), given(split(60, 10), split(50, 9), record(settings, 50)), Metric()))
    for game, expected in ceilings(settings.mechanism(50), [0.001, 0.01, 0.1]).items():
        at = rows[(rows["metric"] == "ceiling") & (rows["game"] == game)].set_index("fpr")["value"]
        assert at[[0.001, 0.01, 0.1]].tolist() == expected.tolist()
        assert at.index.is_monotonic_increasing and at.index[-1] == 1 and len(at) == len(set(at.index))


def test_the_stage_hands_over_the_record_and_the_training_images_in_use(tmp_path):
    model = {"name": "lenet", "channels": [2, 3], "hidden": [4]}
    train, test = split(50, 100, 1), split(30, 10)
    shaped = [Split(np.pad(s.images, ((0, 0), (0, 0), (0, 24), (0, 24))), s.labels, 3) for s in (train, test)]
    paths = {name: tmp_path / f"{name}.npz" for name in ("train", "test")}
    for path, part in zip(paths.values(), shaped, strict=True):
        arrays.save(path, part.images, part.labels, 3)
    net = networks.build(model, (1, 28, 28), 3, seed=seeds.derive("test"))
    networks.save(net, tmp_path / "model.safetensors")
    (tmp_path / "train.json").write_text(json.dumps(record(Training(epochs=1, batch_size=5), 40)))
    spec = {
        "package": "dprobust.metrics.membership",
        "settings": {"fpr": [0.5]},
        "model": model,
        "weights": None,
        "temperature": 1.0,
        "size": 20,
        "draw": "own/test",
        "train": {"n": 40, "name": "own/train"},
        "unofficial": {},
        "code": "",
    }
    out = [tmp_path / name for name in ("m.csv", "m.npz", "m.json")]
    inputs = paths | {"model": tmp_path / "model.safetensors", "trained": tmp_path / "train.json"}
    stage(spec, inputs, *out, {"dataset": "own", "run": "sgd", "seed": "3"}, torch.device("cpu"))
    found = np.load(out[1])
    used = shaped[0].drawn(40, "own/train").take(found["member"])
    logits = net.eval()(torch.from_numpy(used.images).float() / 255)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(used.labels), reduction="none").detach().numpy()
    np.testing.assert_allclose(found["member_loss"], loss, rtol=1e-4)
    assert len(found["index"]) == len(found["loss"]) == 20
    assert {"train.json", "train.npz"} <= {name.rpartition("/")[2] for name in json.loads(out[2].read_text())["inputs"]}


# The figure.


def drawn(**settings):
    entries = ["sgd", {"sigma": 1.3, "clip": 1.0}]
    both = runs(*entries)
    kept, rows = {}, []
    for run, shift in zip(both, (1.0, 0.1), strict=True):
        for seed in (0, 1):
            members, others = scores(seed, 400, 400, shift, 12)
            loss = np.concatenate([-others, [5.0]])
            kept["membership", "mnist", run.name, seed] = {
                "member_loss": -members,
                "loss": loss,
                "other": np.arange(401) < 400,
            }
            about = {"dataset": "mnist", "run": run.name, "seed": seed, "game": "", "fpr": math.nan}
            rows.append(about | {"metric": "auc", "value": auc(members, others).value})
            if run.private:
                rows += [
                    about | {"metric": "ceiling", "game": game, "fpr": fpr, "value": value}
                    for game, values in ceilings(mechanism(steps=100), FPR).items()
                    for fpr, value in zip(FPR, values, strict=True)
                ]
    privacy = pd.DataFrame({"run": [both[1].name], "delta": [1e-6], "epsilon": [1.89]})
    given = Given(runs=both, records={"membership": pd.DataFrame(rows)}, arrays=kept, privacy=privacy, note="demo")
    return SimpleNamespace(
        **dict(
            zip(("figure", "data"), show(given, Display(shows="membership", runs=entries, **settings)), strict=True)
        ),
        kept=kept,
        runs=both,
    )


def test_the_figure_shows_the_rocs_of_the_records_and_the_ceilings():
    of = drawn(from_fpr=0.01)
    (axes,) = of.figure.axes
    assert len(axes.get_lines()) == 1 + 2 + 2 and len(axes.collections) == 2  # guessing, two runs, two ceilings; bands
    roc = of.data[(of.data["curve"] == "roc") & (of.data["run"] == "sgd")].set_index("fpr")
    by_seed = [
        true_positives(-kept["member_loss"], -kept["loss"][:400], [1.0, 0.01])
        for (_, _, run, _), kept in of.kept.items()
        if run == "sgd"
    ]
    assert roc["mean"].iloc[[-1, 0]].tolist() == pytest.approx(np.mean(by_seed, axis=0).tolist())
    assert (roc["low"] <= roc["mean"]).all() and (roc["high"] >= roc["mean"]).all() and roc["high"].max() <= 1
    assert of.data[of.data["curve"] == "added"]["low"].isna().all()  # a ceiling is proved
    assert set(of.data[of.data["run"] == "sgd"]["curve"]) == {"roc", "auc"}
    added = of.data[of.data["curve"] == "added"]
    assert added["fpr"].tolist() == [0.01, 0.1, 0.5, 0.9]  # from the least one shown
    (legend,) = of.figure.legends
    text = " ".join(text.get_text().replace("\n", " ") for text in legend.get_texts())
    assert "ε = 1.89" in text and "area 0.7" in text and "replaced by another" in text


@pytest.mark.slow
def test_intervals_of_the_roc_hold_what_is_true_with_five_seeds():
    """Normal scores, whose ROC is known; seeds differ in how far the members are from the others."""
    fpr, held, trials = np.array([0.02, 0.2]), np.zeros(3), 100
    shifts = 0.8 + 0.15 * stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    truth = [stats.norm.sf(stats.norm.isf(x) - shifts).mean() for x in fpr]
    truth.append(stats.norm.cdf(shifts / math.sqrt(2)).mean())
    for trial in range(trials):
        random = np.random.default_rng(trial)
        images = random.normal(size=(2, 400)) * math.sqrt(0.8)  # the same ones for all seeds
        both = [images + random.normal(size=(2, 400)) * math.sqrt(0.2) for _ in range(5)]
        found = [
            (members + shift, others)
            for (members, others), shift in zip(both, random.normal(0.8, 0.15, 5), strict=True)
        ]
        rows = list(_roc({}, found, fpr, "roc", "auc"))
        held += [row["low"] <= true <= row["high"] for row, true in zip(rows, truth, strict=True)]
    assert (held / trials > 0.93 - 2 * math.sqrt(0.95 * 0.05 / trials)).all(), held / trials


def test_the_figure_shows_mislabelled_images():
    of = drawn()
    for kept in of.kept.values():
        kept |= {"mislabelled_member_loss": np.zeros(5), "mislabelled_other_loss": np.ones(5)}
    rows = pd.DataFrame(
        {"run": run.name, "seed": seed, "metric": "auc", "game": game, "fpr": math.nan, "value": value}
        for run in of.runs
        for seed in (0, 1)
        for game, value in (("", 0.5), ("mislabelled", 1.0))
    )
    given = Given(runs=of.runs, records={"membership": rows}, arrays=of.kept)
    figure, data = show(given, Display(shows="membership", runs=["sgd", {"sigma": 1.3, "clip": 1.0}]))
    assert (data[data["curve"] == "mislabelled"]["mean"] == 1).all()
    text = " ".join(text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts())
    assert text.count("of mislabelled images 1.000") == 2


def test_the_figure_without_ceilings():
    of = drawn(ceilings=False)
    assert set(of.data["curve"]) == {"roc", "auc"} and len(of.figure.axes[0].get_lines()) == 3
    (legend,) = of.figure.legends
    assert not any("replaced" in text.get_text() for text in legend.get_texts())
