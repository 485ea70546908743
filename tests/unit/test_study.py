import copy
import json
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

from dprobust.study import ConfigError, Run, Study

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
PAPER = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def study(change=lambda config: None, config=PAPER):
    config = copy.deepcopy(config)
    change(config)
    return Study(config, SCHEMA)


@pytest.mark.parametrize(
    ("run", "name", "noise_std", "multiplier"),
    [
        (Run(1.3, 1.0), "dpsgd_sigma=1.3_clip=1.0", 1.3, 1.3),
        (Run(1.3, 0.5), "dpsgd_sigma=1.3_clip=0.5", 0.65, 1.3),
        (Run(1.3, 0.5, "sigma"), "dpsgd_sigma=1.3_clip=0.5_noise=sigma", 1.3, 2.6),
        (Run(0.0, 10.0), "dpsgd_sigma=0.0_clip=10.0", 0.0, 0.0),
        (Run(2.0, 1e-5), "dpsgd_sigma=2.0_clip=1e-05", 2e-5, 2.0),
    ],
)
def test_runs(run, name, noise_std, multiplier):
    assert run.name == name and Run.parse(name) == run
    assert run.noise_std == pytest.approx(noise_std) and run.noise_multiplier == pytest.approx(multiplier)


def test_sgd_is_its_own_run():
    assert Run().name == "sgd" and Run.parse("sgd") == Run() and not Run().private


def test_at_clip_1_the_noise_rules_are_one_run():
    assert Run(1.3, 1.0, "sigma") == Run(1.3, 1.0)


def test_the_paper_trains_shared_runs_once():
    """On MNIST all but Fig 7 share sigma 1.3, C 1; 3b and 7 share C 3: 17 runs instead of 35. CIFAR-10 has two."""
    paper = study()
    runs = paper.runs("mnist")
    assert len(runs) == len(set(runs)) == 17
    assert sum(len(figure.runs) for figure in paper.figures.values() if figure.dataset == "mnist") == 35
    names = ["fig1", "fig2", "fig3a", "fig3b", "fig3c", "fig4", "fig5a", "fig5b", "fig5c"]
    names += ["fig6_fgsm", "fig6a", "fig6b", "fig6c", "fig7"]
    assert list(paper.figures) == names and list(paper.tables) == ["table1", "table2"]
    assert [run.name for run in paper.runs("cifar10")] == ["sgd", "dpsgd_sigma=1.0_clip=3.0"]
    assert paper.training("mnist", "dpsgd_sigma=1.3_clip=0.5_noise=sigma") == {
        "epochs": 50,
        "batch_size": 256,
        "lr": 0.05,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "augment": [],
        "sampling": "poisson",
        "engine": "fused",
        "clip": 0.5,
        "noise_std": 1.3,
    }
    assert "clip" not in paper.training("mnist", "sgd") and paper.sizes("mnist")["train"] == 60_000


def test_defaults_are_filled_in_and_the_config_left_alone():
    config = {"study": "mine", "datasets": {"mnist": {}}, "figures": {"f": {"metric": "fgsm", "runs": ["sgd"]}}}
    before = copy.deepcopy(config)
    mine = study(config=config)
    assert config == before
    assert mine.seeds == [0] and mine.training("mnist", "sgd")["sampling"] == "shuffle"
    assert mine.dataset("mnist")["metrics"]["fgsm"]["losses"] == ["ce", "ce_stable", "margin"]


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_fit(preset):
    from snakemake.utils import update_config

    config = copy.deepcopy(PAPER)
    update_config(config, yaml.safe_load(preset.read_text(encoding="utf-8")))
    assert study(config=config).name == preset.stem != "paper"
    assert config["label"]


def mnist(config):
    return config["datasets"]["mnist"]


def first(config):
    return config["figures"]["fig2"]


ERRORS = {
    "typo at the top": (lambda c: c.update(seed=1), "(top level): unknown key 'seed'; did you mean 'seeds'?"),
    "typo below": (lambda c: mnist(c)["training"]["sgd"].update(epoch=1), "datasets.mnist.training.sgd: unknown key"),
    "type": (lambda c: mnist(c)["training"]["sgd"].update(lr="fast"), 'training.sgd.lr: found "fast", expected number'),
    "YAML's text": (lambda c: mnist(c)["privacy"].update(deltas=["1e-6"]), 'deltas[0]: found "1e-6", expected number'),
    "metric": (lambda c: mnist(c)["metrics"].update(fgsn={}), "metrics: unknown key 'fgsn'; did you mean 'fgsm'?"),
    "dataset": (lambda c: c["datasets"].update(svhn={}), 'datasets: found "svhn", expected one of mnist'),
    "sigma": (
        lambda c: first(c).update(runs=[{"sigma": -1, "clip": 1}]),
        "runs[0].sigma: found -1, must be at least 0",
    ),
    "clip": (lambda c: first(c).update(runs=[{"sigma": 1, "clip": [0]}]), "clip[0]: found 0, must be more than 0"),
    "no clip": (lambda c: first(c).update(runs=[{"sigma": 1}]), "figures.fig2.runs[0]: missing key 'clip'"),
    "run": (lambda c: first(c).update(runs=["adam"]), 'runs[0]: found "adam", expected one of sgd'),
    "noise": (lambda c: first(c).update(runs=[{"sigma": 1, "clip": 1, "noise": "x"}]), 'noise: found "x"'),
    "duplicate seed": (lambda c: c.update(seeds=[0, 1, 0]), "seeds: 0 is listed twice"),
    "duplicate value": (lambda c: first(c).update(runs=[{"sigma": [1, 1.0], "clip": 1}]), "sigma: 1.0 is listed twice"),
    "duplicate run": (
        lambda c: first(c).update(runs=[{"sigma": 1, "clip": 1}, {"sigma": 1, "clip": [1, 2]}]),
        "figures.fig2.runs: dpsgd_sigma=1.0_clip=1.0 is listed twice",
    ),
    "batch": (lambda c: mnist(c).update(train_size=100), "batch_size: 256 is more than the 100 training examples"),
    "test size": (lambda c: mnist(c).update(test_size=10_001), "datasets.mnist.test_size: 10001, but mnist has 10000"),
    "eps": (lambda c: mnist(c)["metrics"]["fgsm"].update(eps=[0.2, 0.1]), "fgsm.eps: must be in ascending order"),
    "loss": (lambda c: first(c).update(losses=["dlr"]), 'fig2.losses[0]: found "dlr", expected one of ce,'),
    "loss that is not measured": (
        lambda c: mnist(c)["metrics"]["fgsm"].update(losses=["ce"]),
        "figures.fig2.losses: margin is not among datasets.mnist.metrics.fgsm.losses",
    ),
    "channels": (
        lambda c: mnist(c)["model"].update(normalize={"mean": [0, 0], "std": [1]}),
        "normalize.mean: 2 values",
    ),
    "figure's dataset": (
        lambda c: first(c).update(dataset="cifar100"),
        "figures.fig2.dataset: 'cifar100' is not among the datasets (mnist, cifar10)",
    ),
    "model of other images": (
        lambda c: c["datasets"]["cifar10"]["model"].update(name="lenet"),
        "datasets.cifar10.model.name: lenet takes 1 x 28 x 28 images, cifar10 has 3 x 32 x 32",
    ),
    "crops of features": (
        lambda c: c["datasets"]["cifar10"]["training"]["sgd"].update(augment=["crop"]),
        "datasets.cifar10.training.sgd.augment: frozen layers have no features of crops",
    ),
    "pre-training on other images": (
        lambda c: c["datasets"]["cifar10"]["pretraining"].update(dataset="mnist"),
        "datasets.cifar10.model.name: cifarnet takes 3 x 32 x 32 images, mnist has 1 x 28 x 28",
    ),
    "override": (
        lambda c: mnist(c).update(sha256={"train-images-idx3-ubyte": "abc"}),
        'datasets.mnist.sha256.train-images-idx3-ubyte: found "abc", must match ^[0-9a-f]{64}$',
    ),
    "relative to nothing": (
        lambda c: c["datasets"]["cifar10"]["metrics"]["fgsm"].update(eps=[0.1]),
        "figures.fig6_fgsm.relative: needs 0.0 in datasets.cifar10.metrics.fgsm.eps",
    ),
    "change of one run": (
        lambda c: c["figures"]["fig6a"].update(runs=["sgd"]),
        "figures.fig6a.paper_change: needs two runs",
    ),
    "corruptions of other images": (
        lambda c: c["tables"]["table2"].update(dataset="cifar10"),
        "datasets.cifar10.metrics.corruptions.sets: tables.table2 needs a file of corrupted test images",
    ),
    "gap of one run": (lambda c: first(c).update(runs=["sgd"]), "figures.fig2.paper_gap: needs two runs"),
    "ratio of one run": (
        lambda c: c["figures"]["fig5c"].update(runs=["sgd"]),
        "figures.fig5c.paper_ratio: needs two runs",
    ),
    "means of more runs": (
        lambda c: c["figures"]["fig5a"].update(runs=["sgd"]),
        "figures.fig5a.paper_means: 2 values, but the figure has 1 run(s)",
    ),
    "norm": (lambda c: c["figures"]["fig5a"].update(norm="l1"), 'fig5a.norm: found "l1", expected one of linf, l2'),
    "another metric's key": (lambda c: c["figures"]["fig5c"].update(norm="l2"), "fig5c: unknown key 'norm'"),
    "eigenvalues": (
        lambda c: mnist(c)["metrics"]["curvature"].update(eigenvalues=785),
        "curvature.eigenvalues: 785, but an image of mnist has 784 pixels",
    ),
    "restarts": (
        lambda c: mnist(c)["metrics"]["pgd"].update(restarts=3),
        "metrics.pgd.restarts: found 3, expected one of 1",
    ),
    "sample": (
        lambda c: mnist(c).update(test_size=4),
        "cross_sections.samples: 4, but images 0 to 3 are in use",
    ),
    "table's loss that is not measured": (
        lambda c: mnist(c)["metrics"]["pgd"].update(losses=["ce"]),
        "tables.table1.losses: margin is not among datasets.mnist.metrics.pgd.losses",
    ),
    "study": (lambda c: c.update(study="../up"), 'study: found "../up", must match'),
    "nothing": (lambda c: c.pop("figures"), "(top level): missing key 'figures'"),
    "null": (lambda c: c.update(datasets=None), "datasets: found null, expected object"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_key_in_one_line(name):
    change, message = ERRORS[name]
    with pytest.raises(ConfigError) as error:
        study(change)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_null_leaves_out_a_dataset_with_its_figures_or_a_single_one():
    paper = study()

    def overlay(config):
        config["datasets"]["mnist"] = config["figures"]["fig6b"] = None

    rest = study(overlay)
    assert list(rest.figures) == ["fig6_fgsm", "fig6a", "fig6c"] and not rest.tables
    assert list(rest.config["datasets"]) == ["cifar10"] and rest.pretrained == ["cifar10"]
    assert rest.runs("cifar10") == paper.runs("cifar10")
    # Their figures alone leave no runs, and nothing to pre-train.
    bare = study(lambda c: c["figures"].update({name: None for name in paper.figures if name.startswith("fig6")}))
    assert bare.runs("cifar10") == [] and bare.pretrained == []


def test_sources_and_what_is_not_official():
    def overlay(config):
        entry = config["datasets"]["cifar10"]
        entry.update(mirrors=["a", "b"], sha256={"x": "0" * 64})
        entry["pretraining"].update(mirrors=["c"], sha256={"y": "1" * 64})

    changed = study(overlay)
    assert changed.source("cifar10") == {"mirrors": ["a", "b"], "sha256": {"x": "0" * 64}}
    assert changed.source("cifar100") == {"mirrors": ["c"], "sha256": {"y": "1" * 64}}
    assert changed.unofficial("cifar10") == {"x": "0" * 64, "y": "1" * 64} and changed.unofficial("mnist") == {}
    assert ("unofficial data", "x, y, by the SHA-256 in the config") in changed.facts()
    assert "unofficial data" not in dict(study().facts())
    assert dict(study().facts())["pre-training"].startswith("convolutions, on cifar100 (public), frozen: epochs")


def test_every_key_of_the_schema_is_described():
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))

    def check(path, rules):
        for key, rule in rules.get("properties", {}).items():
            if "$ref" in rule:
                rule = schema["$defs"][rule["$ref"].rsplit("/", 1)[1]] | rule
            assert rule.get("description"), f"{path}.{key} has no description"
            check(f"{path}.{key}", rule)
        if rules.get("type") == "object":
            assert {"additionalProperties", "unevaluatedProperties"} & set(rules), f"{path} takes any key"

    check("", schema)
    for name, rules in schema["$defs"].items():
        check(name, rules)


def test_a_study_needs_no_torch():
    code = "import sys, dprobust.study, dprobust.fingerprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_settings_are_plain_values():
    """Snakemake stores them and compares them: only what JSON knows may reach it."""
    paper = study()
    assert json.loads(json.dumps(paper.training("mnist", "sgd"))) == paper.training("mnist", "sgd")
