import copy
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

from dprobust.plan import Plan
from dprobust.study import ConfigError, Study
from dprobust.telling import facts

HOT = "dpsgd_sigma=1.0_clip=1.0_temperature=2.0"
ELSEWHERE = {"transfer_from": ["dpsgd_sigma=2.0_clip=1.0"]}
FROM = {"transfer_from": ["sgd", "dpsgd_sigma=1.3_clip=1.0"]}
PAPER = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def study(change=lambda config: None, config=PAPER):
    config = copy.deepcopy(config)
    change(config)
    return Study(config)


def test_the_paper_trains_shared_runs_once():
    """On MNIST all but Fig 7 share sigma 1.3, C 1; 3b and 7 share C 3: 17 runs instead of 64. CIFAR-10 has two."""
    paper = study()
    runs = paper.runs("mnist")
    assert len(runs) == len(set(runs)) == len(paper.trained("mnist")) == 17
    figures = paper.section("figures")
    own = [figure for figure in figures if figure.settings.dataset == "mnist"]
    assert sum(len(figure.runs) for figure in own) == 66
    names = [
        "fig1",
        "fig2",
        "fig3a",
        "fig3b",
        "fig3c",
        "fig4",
        "fig5a",
        "fig5b",
        "fig5c",
        "fig6a",
        "fig6b",
        "fig6c",
        "fig7",
    ]
    names += ["fig2_strongest", "fig3a_strongest", "fig3b_strongest", "fig3c_strongest", "fig4_strongest"]
    names += ["certified", "fig7_strongest", "fig4_stable", "fig6_fgsm", "mnist_c_auto"]
    assert [figure.name for figure in figures] == sorted(names)
    assert [table.name for table in paper.section("tables")] == ["accuracy", "ladder", "privacy", "table1", "table2"]
    assert [run.name for run in paper.runs("cifar10")] == ["sgd", "dpsgd_sigma=1.0_clip=3.0"]
    training = paper.run("mnist", "dpsgd_sigma=1.3_clip=0.5_noise=sigma").training
    assert (training.epochs, training.batch_size, training.lr, training.sampling) == (50, 256, 0.05, "poisson")
    assert (training.clip, training.noise_std, training.noise_multiplier) == (0.5, 1.3, 2.6)
    assert paper.run("mnist", "sgd").training.clip is None and paper.facts_of("mnist").train == 60_000


def test_a_display_of_everything_shows_every_run_once():
    paper = study()
    shown = [(dataset, run.name) for dataset, run in paper.displays["accuracy"].runs]
    assert len(shown) == len(set(shown)) == 19 and paper.displays["accuracy"].target == "accuracy_table"


def test_defaults_are_filled_in_and_the_config_left_alone():
    config = {"study": "mine", "datasets": {"mnist": {}}, "figures": {"f": {"shows": "fgsm", "runs": ["sgd"]}}}
    before = copy.deepcopy(config)
    mine = study(config=config)
    assert config == before
    assert mine.seeds == [0] and mine.run("mnist", "sgd").training.sampling == "shuffle"
    assert mine.dataset("mnist").metrics.fgsm.losses == ["ce", "ce_stable", "margin"]


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_fit(preset):
    from snakemake.utils import update_config

    config = copy.deepcopy(PAPER)
    update_config(config, yaml.safe_load(preset.read_text(encoding="utf-8")))
    assert study(config=config).name == preset.stem != "paper"
    assert config["label"]


def test_presets_measure_and_train_what_they_are_about():
    """What is new in config.yaml is new in its overlays, unless they leave it out."""
    from snakemake.utils import update_config

    def preset(name):
        config = copy.deepcopy(PAPER)
        update_config(config, yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text(encoding="utf-8")))
        mine = study(config=config)
        return mine, {metric for display in mine.displays.values() for metric in display.asks("metrics")}

    assert preset("audit")[1] == {"audit", "membership"}
    engines, metrics = preset("engines")
    names = set(engines.trained("mnist"))
    assert names == {"dpsgd_sigma=1.3_clip=1.0", "dpsgd_sigma=1.3_clip=1.0_engine=bfloat16"}
    assert metrics == {"clean", "fgsm"} and len(engines.seeds) == 5
    given, metrics = preset("my-models")
    assert not given.trained("mnist") and metrics == {"clean", "fgsm", "pgd", "distances", "curvature", "attack_check"}


def test_only_the_displays_asked_for():
    def asking(only):
        return study(config=PAPER | {"only": only})

    mine = asking(["fig2", "privacy"])
    assert list(mine.displays) == ["fig2", "privacy"] and len(mine.trained("mnist")) == 2
    assert "claims" in asking(["fig2", "claims"]).displays
    with pytest.raises(ConfigError, match="^only: there is no figure, table or page 'fig22'; did you mean 'fig2'\\?$"):
        asking(["fig22"])
    with pytest.raises(ConfigError, match='^only: found "fig2", expected list$'):
        asking("fig2")
    with pytest.raises(ConfigError, match="^only: "):
        asking(["fig2", {"fig3a": 1}])


def test_any_setting_makes_a_run():
    """The controls that the captions call for can be written down."""
    runs = [
        "sgd",
        {"sigma": 1.3, "clip": [1, 3, 10], "lr": [0.05, 0.0167, 0.005], "pair": True},
        {"algorithm": "sgd", "clip": 1.0},
        {"algorithm": "sgd", "sigma": 1.0},
        {"algorithm": "sgd", "stop": {"accuracy": 0.965}},
        {"epsilon": 3.0, "clip": 1.0},
        {"sigma": 1.3, "clip": 1.0, "temperature": [0.5, 2.0]},
        {"algorithm": "sgd", "model": {"activation": "tanh", "pooling": "avg"}},
        {"algorithm": "sgd", "model": {"name": "small_cnn"}, "init": "xavier"},
    ]
    mine = study(lambda c: first(c).update(runs=runs, paper_gap=[]))
    shown = [run.name for _, run in mine.displays["fig2"].runs]
    assert shown == [
        "sgd",
        "dpsgd_sigma=1.3_clip=1.0",
        "dpsgd_sigma=1.3_clip=3.0_lr=0.0167",
        "dpsgd_sigma=1.3_clip=10.0_lr=0.005",
        "sgd_clip=1.0",
        "sgd_sigma=1.0",
        "sgd_stop.accuracy=0.965",
        "dpsgd_epsilon=3.0_clip=1.0",
        "dpsgd_sigma=1.3_clip=1.0_temperature=0.5",
        "dpsgd_sigma=1.3_clip=1.0_temperature=2.0",
        "sgd_model.activation=tanh_model.pooling=avg",
        shown[-1],
    ]
    assert "model.name=small_cnn" in shown[-1] and "init=xavier" in shown[-1]
    trained = set(mine.trained("mnist"))
    assert not any("temperature" in name for name in trained) and "sgd_sigma=1.0" in trained
    assert mine.run("mnist", "dpsgd_epsilon=3.0_clip=1.0").training.delta == 1e-6


def test_models_of_other_runs_are_inputs_whose_keys_count():
    """Those that images are transferred from, and the one whose confidence another is to have."""
    private = "dpsgd_sigma=1.3_clip=1.0"

    def planned(change=lambda config: None, seed=3):
        def overlay(config):
            runs = ["sgd", {"sigma": 1.3, "clip": 1.0}, {"algorithm": "sgd", "temperature": {"confidence_of": private}}]
            first(config).update(runs=runs, paper_gap=[])
            change(config)

        plan = Plan(study(overlay), ROOT / "workflow" / "scripts")
        hot = next(run.name for run in plan.study.runs("mnist") if run.scaled)
        return plan, hot

    plan, hot = planned()
    model = "results/paper/models/mnist/{}/seed=3/model.safetensors"
    inputs = plan.measure_inputs("mnist", hot, 3, "fgsm")
    assert (inputs["model"], inputs["confident"]) == (model.format("sgd"), model.format(private))
    assert "confident" not in plan.measure_inputs("mnist", "sgd", 3, "fgsm")
    assert hot not in plan.study.trained("mnist") and plan.study.run("mnist", hot).base == "sgd"
    assert plan.measure_inputs("mnist", private, 3, "attack_check")["other_0"] == model.format("sgd")
    assert "other_0" not in plan.measure_inputs("mnist", "sgd", 3, "attack_check")
    assert plan.measure("mnist", private, "attack_check")["others"][0]["run"] == "sgd"
    # A run's own key, and one that has nothing to do with the other, stay as they are.
    changed, _ = planned(lambda config: config["datasets"]["mnist"]["training"]["dpsgd"].update(lr=0.3))
    for run, metric, same in ((hot, "fgsm", False), ("sgd", "attack_check", True), ("sgd", "fgsm", True)):
        assert (plan.measure("mnist", run, metric) == changed.measure("mnist", run, metric)) == same
    listed, _ = planned(lambda config: config["datasets"]["mnist"]["metrics"].update(attack_check=FROM))
    assert [key for key in listed.measure_inputs("mnist", "sgd", 3, "attack_check") if "other" in key] == ["other_0"]
    other, _ = planned(lambda config: config["datasets"]["mnist"]["training"]["sgd"].update(lr=0.3))
    one, two = (made.measure("mnist", private, "attack_check") for made in (plan, other))
    assert one["made_from"] == two["made_from"] and one != two  # the run is as before, the other's model is not
    none, _ = planned(lambda config: config["datasets"]["mnist"]["metrics"].update(attack_check={"transfer_from": []}))
    assert "others" not in none.measure("mnist", "sgd", "attack_check")


def test_figures_mark_runs_by_what_the_study_measures_anyway():
    plan = Plan(study(), ROOT / "workflow" / "scripts")
    inputs = plan.show_inputs(plan.study.displays["fig2"])
    assert {path.split("/")[4] for path in inputs["flags_attack_check"]} == {"sgd", "dpsgd_sigma=1.3_clip=1.0"}
    assert list(plan.show("fig2")["flags"]) == ["attack_check"]
    # Of other images, of a display of no accuracy under attack, or where nothing checks it: no marks.
    for name in ("fig5a", "fig6_fgsm"):
        assert not any("flags" in key for key in plan.show_inputs(plan.study.displays[name]))
    # Nor is anything trained for them: where images are transferred from a run that is not shown, there are none.
    listed = study(lambda config: config["datasets"]["mnist"]["metrics"].update(attack_check=ELSEWHERE))
    assert "flags" not in Plan(listed, ROOT / "workflow" / "scripts").show("fig2")
    alone = Plan(study(lambda config: config.update(only=["fig2"])), ROOT / "workflow" / "scripts")
    assert not any("flags" in key for key in alone.show_inputs(alone.study.displays["fig2"]))
    assert "flags" not in alone.show("fig2")


def test_given_weights_are_not_trained():
    runs = ["sgd", {"weights": "a.pt", "name": "mine", "privacy": {"epsilon": 3.0, "delta": 1e-5}}]
    mine = study(lambda c: first(c).update(runs=runs))
    run = mine.run("mnist", "weights=mine")
    assert "weights=mine" not in mine.trained("mnist") and mine.seeds_of(run) == [0]


def mnist(config):
    return config["datasets"]["mnist"]


def first(config):
    return config["figures"]["fig2"]


def second(config):
    return config["figures"]["fig3a"]


ERRORS = {
    "typo at the top": (lambda c: c.update(seed=1), "(top level): unknown key 'seed'; did you mean 'seeds'?"),
    "typo below": (lambda c: mnist(c)["training"]["sgd"].update(epoch=1), "datasets.mnist.training.sgd: unknown key"),
    "type": (lambda c: mnist(c)["training"]["sgd"].update(lr="fast"), 'training.sgd.lr: found "fast", expected number'),
    "YAML's text": (lambda c: mnist(c)["privacy"].update(deltas=["1e-6"]), 'deltas[0]: found "1e-6", expected number'),
    "metric": (lambda c: mnist(c)["metrics"].update(fgsn={}), "metrics: unknown key 'fgsn'; did you mean 'fgsm'?"),
    "dataset": (lambda c: c["datasets"].update(svhn={}), "datasets.svhn.source: "),
    "infinite": (lambda c: mnist(c)["training"]["sgd"].update(lr=float("inf")), "sgd.lr: found Infinity, expected a"),
    "nan": (lambda c: second(c).update(runs=[{"sigma": float("nan"), "clip": 1}]), "runs[0].sigma: found NaN"),
    "sigma": (
        lambda c: first(c).update(runs=[{"sigma": -1, "clip": 1}]),
        "runs[0].sigma: found -1, must be at least 0",
    ),
    "clip": (lambda c: first(c).update(runs=[{"sigma": 1, "clip": [0]}]), "clip[0]: found 0, must be more than 0"),
    "no clip": (lambda c: first(c).update(runs=[{"sigma": 1}]), "figures.fig2.runs: a DP-SGD run needs clip"),
    "no noise": (lambda c: first(c).update(runs=[{"clip": 1}]), "figures.fig2.runs: a DP-SGD run needs sigma or"),
    "both": (lambda c: first(c).update(runs=[{"sigma": 1, "epsilon": 1, "clip": 1}]), "sigma and epsilon exclude"),
    "pairs": (
        lambda c: first(c).update(runs=[{"sigma": [1, 2], "clip": [1, 2, 3], "pair": True}]),
        "figures.fig2.runs: pair: lists of different lengths (sigma 2, clip 3)",
    ),
    "stop of a private run": (
        lambda c: first(c).update(runs=[{"sigma": 1, "clip": 1, "stop": {"accuracy": 0.9}}]),
        "figures.fig2.runs: a training with noise cannot stop",
    ),
    "stop of no run": (
        lambda c: first(c).update(
            runs=[{"sigma": 1, "clip": 1}, {"algorithm": "sgd", "stop": {"accuracy_of": "dpsgd_sigma=1_clip=1"}}]
        ),
        "accuracy_of: dpsgd_sigma=1_clip=1 is not among the runs that are trained; did you mean 'dpsgd_sigma=",
    ),
    "stop of a stop": (
        lambda c: first(c).update(
            runs=[
                "sgd",
                {"algorithm": "sgd", "stop": {"accuracy_of": "sgd"}},
                {"algorithm": "sgd", "lr": 0.5, "stop": {"accuracy_of": "sgd_stop.accuracy_of=sgd"}},
            ]
        ),
        "accuracy_of: sgd_stop.accuracy_of=sgd stops at the accuracy of another itself; name that one",
    ),
    "confidence of no run": (
        lambda c: first(c).update(
            runs=["sgd", {"sigma": 1, "clip": 1, "temperature": {"confidence_of": "sdg"}}],
        ),
        "temperature.confidence_of: sdg is not among the runs of the study; did you mean 'sgd'?; show it, too",
    ),
    "confidence of a temperature": (
        lambda c: first(c).update(
            runs=["sgd", *({"sigma": 1, "clip": 1, "temperature": of} for of in (2.0, {"confidence_of": HOT}))]
        ),
        f"temperature.confidence_of: {HOT} has a temperature itself; name dpsgd_sigma=1.0_clip=1.0",
    ),
    "transfer from no run": (
        lambda c: c["datasets"]["mnist"]["metrics"].update(attack_check={"transfer_from": ["sgd", "dpsgd_sigma=1.3"]}),
        "datasets.mnist.metrics.attack_check: run dpsgd_sigma=1.3 is not among the runs of the study; did",
    ),
    "transfer from a temperature": (
        lambda c: (
            first(c).update(runs=["sgd", {"sigma": 1, "clip": 1, "temperature": 2.0}]),
            c["datasets"]["mnist"]["metrics"].update(attack_check={"transfer_from": [HOT]}),
        ),
        f"run {HOT} has a temperature itself; name dpsgd_sigma=1.0_clip=1.0",
    ),
    "everything held out": (
        lambda c: first(c).update(runs=["sgd", {"algorithm": "sgd", "stop": {"accuracy": 0.9, "holdout": 60_000}}]),
        "batch_size: 256 is more than the 0 training examples that stop.holdout leaves of 60000",
    ),
    "run": (lambda c: first(c).update(runs=["adam"]), 'runs[0]: found "adam", expected one of sgd'),
    "setting of a run": (lambda c: first(c).update(runs=[{"sigma": 1, "clip": 1, "l": 1}]), "runs[0]: unknown key 'l'"),
    "noise": (lambda c: first(c).update(runs=[{"sigma": 1, "clip": 1, "noise": "x"}]), 'noise: found "x"'),
    "model of a run": (
        lambda c: first(c).update(runs=[{"algorithm": "sgd", "model": {"activation": "gelu"}}]),
        'figures.fig2.runs: found "gelu", expected one of relu, tanh',
    ),
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
        "figures.fig2",
    ),
    "channels": (
        lambda c: mnist(c)["model"].update(normalize={"mean": [0, 0], "std": [1]}),
        "normalize.mean: 2 values",
    ),
    "figure's dataset": (
        lambda c: first(c).update(dataset="cifar100"),
        "figures.fig2.dataset: 'cifar100' is not among the datasets (mnist, cifar10)",
    ),
    "crops of features": (
        lambda c: c["datasets"]["cifar10"]["training"]["sgd"].update(augment=["crop"]),
        "datasets.cifar10.training.sgd.augment: frozen layers have no features of crops",
    ),
    "pre-training on other images": (
        lambda c: c["datasets"]["cifar10"]["pretraining"].update(dataset="mnist"),
        "datasets.cifar10.pretraining.dataset: mnist has 1 x 28 x 28 images, cifar10 3 x 32 x 32",
    ),
    "pre-training on the private data": (
        lambda c: c["datasets"]["cifar10"]["pretraining"].update(dataset="cifar10"),
        "datasets.cifar10.pretraining.dataset: cifar10 is what is to be kept private",
    ),
    "override": (
        lambda c: mnist(c).update(sha256={"train-images-idx3-ubyte": "abc"}),
        'datasets.mnist.sha256.train-images-idx3-ubyte: found "abc", must match ^[0-9a-f]{64}$',
    ),
    "relative to nothing": (
        lambda c: c["datasets"]["cifar10"]["metrics"]["fgsm"].update(eps=[0.1]),
        "figures.fig6_fgsm",
    ),
    "change of one run": (lambda c: c["figures"]["fig6a"].update(runs=["sgd"]), "figures.fig6a"),
    "corruptions of other images": (
        lambda c: c["tables"]["table2"].update(dataset="cifar10", paper=""),
        "datasets.cifar10.metrics.corruptions",
    ),
    "gap of one run": (lambda c: first(c).update(runs=["sgd"]), "figures.fig2"),
    "norm": (lambda c: c["figures"]["fig5a"].update(norm="l1"), 'fig5a.norm: found "l1", expected one of linf, l2'),
    "another display's key": (lambda c: c["figures"]["fig5c"].update(norm="l2"), "fig5c: unknown key 'norm'"),
    "kind of display": (lambda c: first(c).update(shows="fgms"), 'fig2: found "fgms", expected one of'),
    "no kind of display": (lambda c: first(c).pop("shows"), "fig2: missing key 'shows'"),
    "restarts": (lambda c: mnist(c)["metrics"]["pgd"].update(restarts=3), "metrics.pgd"),
    "study": (lambda c: c.update(study="../up"), 'study: found "../up", must match'),
    "long study": (lambda c: c.update(study="x" * 300), "study: found"),
    "line break": (lambda c: c.update(study="x\n"), "study: found"),
    "nothing": (lambda c: c.pop("study"), "(top level): missing key 'study'"),
    "null": (lambda c: c.update(datasets=None), "datasets: found null, expected mapping"),
    "number for a name": (lambda c: c["figures"].update({7: first(c)}), "figures"),
    "a rule's name": (
        lambda c: c["figures"].update(report=first(c)),
        "figures.report: report is a rule of the workflow; give it a `target` or a name",
    ),
    "a rule's name as target": (lambda c: first(c).update(target="train"), "figures.fig2.target: train is a rule"),
    "one target twice": (lambda c: first(c).update(target="fig3a"), "has the target 'fig3a', too"),
    "one name twice": (lambda c: c["tables"].update(fig2=c["tables"]["table1"]), "of the same name; rename one"),
    "paper": (lambda c: c["tables"]["table1"].update(paper="../../README.md"), "tables.table1.paper: no file"),
    "extension": (lambda c: c.update(extensions=["nowhere"]), "extensions: no folder nowhere"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_key_in_one_line(name):
    change, message = ERRORS[name]
    with pytest.raises(ConfigError) as error:
        study(change)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 320


def test_figures_and_tables_may_have_the_names_of_metrics_and_displays():
    def own(config):
        config["figures"] = {"distances": first(config)}
        config["tables"] = {"fgsm": config["tables"]["table1"]}
        config["pages"] = {}

    assert set(study(own).displays) == {"claims", "distances", "fgsm"}


def test_null_leaves_out_a_dataset_with_its_figures_or_a_single_one():
    paper = study()

    def overlay(config):
        config["datasets"]["mnist"] = config["figures"]["fig6b"] = None

    rest = study(overlay)
    assert [figure.name for figure in rest.section("figures")] == ["fig6_fgsm", "fig6a", "fig6c"]
    assert [table.name for table in rest.section("tables")] == ["accuracy", "privacy"]
    assert list(rest.datasets) == ["cifar10"]
    assert rest.runs("cifar10") == paper.runs("cifar10")


def test_without_figures_and_claims_there_are_no_runs():
    def overlay(config):
        config["figures"].update({name: None for name in config["figures"] if name.startswith("fig6")})
        config["claims"] = None

    bare = study(overlay)
    assert bare.runs("cifar10") == []


def test_sources_and_what_is_not_official():
    def overlay(config):
        entry = config["datasets"]["cifar10"]
        entry.update(mirrors=["a", "b"], sha256={"x": "0" * 64})
        entry["pretraining"].update(mirrors=["c"], sha256={"y": "1" * 64})

    changed = study(overlay)
    assert changed.given("cifar10") == {"mirrors": ["a", "b"], "sha256": {"x": "0" * 64}}
    assert changed.given("cifar100") == {"mirrors": ["c"], "sha256": {"y": "1" * 64}}
    assert changed.unofficial("cifar10") == {"x": "0" * 64, "y": "1" * 64} and changed.unofficial("mnist") == {}
    assert ("unofficial data", "x, y, by the SHA-256 in the config") in facts(changed)
    assert "unofficial data" not in dict(facts(study()))
    assert dict(facts(study()))["pre-training"].startswith("convolutions, on cifar100 (public), frozen: epochs")


def test_a_study_and_its_plan_need_no_torch():
    code = (
        "import sys, yaml; from pathlib import Path; from dprobust.study import Study; from dprobust.plan import Plan\n"
        "study = Study(yaml.safe_load(Path('config.yaml').read_text()))\n"
        "plan = Plan(study, Path('workflow/scripts'))\n"
        "[plan.show(name) for name in study.displays]\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'opacus', 'matplotlib', 'snakemake')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
