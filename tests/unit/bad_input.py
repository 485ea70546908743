"""Wrong configs: (dotted key, value) -> what the error must say. A key in a `figures.own` makes that figure first."""

NAN, INF = float("nan"), float("inf")
HUGE = 10**400
"""An integer of 401 digits."""
OWN = {"shows": "fgsm", "dataset": "mnist"}
M = "datasets.mnist"


def runs(**settings):
    """A figure of one's own with SGD and one run more."""
    return ("figures.own", OWN | {"runs": ["sgd", settings]})


NUMBERS = {  # key -> the values that it cannot have, besides nan, inf, text, a list, a mapping
    f"{M}.training.sgd.lr": [0, -1, HUGE, True],
    f"{M}.training.sgd.momentum": [-0.1, 1, 1.5],
    f"{M}.training.sgd.weight_decay": [-1e-4],
    f"{M}.training.dpsgd.lr": [0, -INF],
    f"{M}.training.sgd.epochs": [0, -1, 1.5, HUGE, 10**12],
    f"{M}.training.dpsgd.batch_size": [0, 70_000, 1.0, HUGE],
    f"{M}.training.dpsgd.batch_cap": [10, HUGE],
    f"{M}.train_size": [0, -5, 60_001, 100],
    f"{M}.test_size": [0, 10_001],
    f"{M}.metrics.pgd.alpha": [0, 1.5, -0.01],
    f"{M}.metrics.pgd.restarts": [0, 1_001, 3],
    f"{M}.metrics.pgd.images": [0, -1, 0.5],
    f"{M}.metrics.pgd_iterations.steps": [0, 10**12],
    f"{M}.metrics.cross_sections.half_width": [0, -1],
    f"{M}.metrics.cross_sections.resolution": [0, 1, 10**6],
    f"{M}.metrics.cross_sections.images": [0],
    f"{M}.metrics.curvature.eigenvalues": [0, 785],
}
LISTS = {
    f"{M}.metrics.fgsm.eps": [[], [NAN], [INF], [-0.1], [1.1], [0.2, 0.1], [0.1, 0.1], ["a"], 0.1, [HUGE]],
    f"{M}.metrics.pgd.steps": [[], [0], [10**12], [30, 30], [1.5], 40],
    f"{M}.metrics.curvature.h": [[], [0], [NAN], [INF]],
    f"{M}.metrics.fgsm.losses": [[], ["dlr"], ["ce", "ce"], "ce"],
    f"{M}.model.hidden": [[0], [-1], [10**9], [1.5], 500, ["a"]],
    f"{M}.model.channels": [[20], [20, 50, 70], [0, 1]],
    f"{M}.model.normalize.mean": [[], [NAN], [INF], [0.1, 0.2], 0.1],
    f"{M}.model.normalize.std": [[], [0], [-1], [NAN], [0.1, 0.2]],
    f"{M}.privacy.deltas": [[], [0], [1], [NAN], ["1e-6"], [1e-6, 1e-6], [1e-300], [INF]],
    "seeds": [[], [-1], [1.0], [0, 0], [2**32], [HUGE], ["a"], 3, None, [NAN]],
}
TEXTS = {
    "study": ["", "../up", "a/b", "x\n", " x", "x" * 300, 7, None, "{x}", "-x", [], {}],
    "device": ["gpu", "CUDA", 0, None],
    "title": [7, ["a"], "x" * 201],
    "label": [7, {}, "x" * 201],
    f"{M}.source": ["/nope.npz", "nowhere", "", 7, "torchvision:Nope"],
    f"{M}.mirrors": ["x", [""], [7]],
    f"{M}.sha256": [{"a": "b"}, [], "x"],
    f"{M}.model.name": ["lennet", "", 7, "a:b:c"],
    f"{M}.training.sgd.sampling": ["poison", 1, None],
    f"{M}.training.dpsgd.engine": ["fast", None],
    f"{M}.training.sgd.augment": [["rotate"], "flip", ["flip", "flip"]],
    "only": [[], ["fig99"], "fig2", [7]],
    "extensions": [["/nope"], "x", [7], [""]],
    "datasets": [None, [], {}, "mnist"],
    "datasets.svhn": [{}],
    "datasets.Mnist": [{}],
    "datasets.mnist": ["x", [], 7],
    "figures": [[], "x", 7],
    "figures.fig2.shows": ["fgms", "", None, 7],
    "figures.fig2.dataset": ["cifar100", None, 7],
    "figures.fig2.runs": [[], "sgd", None, [7], ["adam"], [None], [["sgd"]], ["sgd", "sgd"]],
    "figures.fig2.title": [7],
    "figures.fig2.target": ["train", "fig3a", "all", 7, "x y", "a/b", "x\n", ""],
    "tables.table1.paper": ["../../README.md", "tabel1.csv", 7],
    "pages": [7],
}
RULES = ["all", "models", "figures", "tables", "pages", "get", "prepare", "train", "measure", "account", "report"]
NAMES = ["x\n", "x-y", "X", "7", "x" * 61, "", "fig 2", "é"]
RUNS = [
    {"sigma": value, "clip": 1} for value in (NAN, INF, -1, "a", HUGE, 10**300, [], [1, 1.0], [NAN], {}, True)
] + [
    {"sigma": 1, "clip": value} for value in (NAN, INF, 0, -1, "a", [0], [], HUGE)
] + [
    {"sigma": 1}, {"clip": 1}, {}, {"sigma": 1, "epsilon": 1, "clip": 1}, {"epsilon": NAN, "clip": 1},
    {"epsilon": 0, "clip": 1}, {"epsilon": INF, "clip": 1}, {"sigma": [1, 2], "clip": [1], "pair": True},
    {"sigma": 1, "clip": 1, "lr": NAN}, {"sigma": 1, "clip": 1, "temperature": 0},
    {"sigma": 1, "clip": 1, "temperature": INF}, {"sigma": 1, "clip": 1, "label": 7},
    {"sigma": 1, "clip": 1, "model": {"hidden": [10**9]}}, {"sigma": 1, "clip": 1, "model": {"name": "nope"}},
    {"sigma": 1, "clip": 1, "model": 7}, {"sigma": 1, "clip": 1, "mislabelled": 60_000},
    {"weights": "", "name": "x"}, {"weights": "/nope.pt", "name": "x\n"}, {"weights": "/nope.pt"},
    {"weights": "/nope.pt", "name": "x", "temperature": NAN}, {"sigma": 1, "clip": 1, "init": "zero"},
    {"algorithm": "adam"}, {"algorithm": "sgd", "stop": {"accuracy": NAN}}, {"algorithm": "sgd", "stop": 1},
]  # fmt: skip


def rows():
    """Every wrong config, as (dotted key, value)."""
    for key, values in NUMBERS.items():
        for value in [*values, NAN, INF, "a", [1], {}]:
            yield key, value
    for table in (LISTS, TEXTS):
        for key, values in table.items():
            for value in values:
                yield key, value
    for section, shown in (("figures", "fig2"), ("tables", "table1")):
        for name in [*RULES, *NAMES]:
            yield f"{section}.{name}", f"like {shown}"
    for run in RUNS:
        yield runs(**run)
