"""What a study tells its readers: the facts that head its report, and what captions can say."""

from collections.abc import Iterable
from typing import Any

from dprobust.accounting.adjacency import ADJACENCIES, PHRASES
from dprobust.recipe import COUPLED
from dprobust.runs import ALGORITHMS, Run
from dprobust.showing import intervals
from dprobust.study import Display, Study


def facts(study: Study) -> list[tuple[str, str]]:
    """What a reader of the study's report should know first, as (name, text)."""
    facts = [("study", study.name), ("seeds", ", ".join(map(str, study.seeds)))]
    for name, entry in study.datasets.items():
        known, model = study.facts_of(name), entry.model
        sizes = [f"{known.train or 'all'} training", f"{known.test or 'all'} test images"]
        trained = len(study.trained(name))
        facts.append((name, f"{', '.join(sizes)} of {study.source(name)}; {trained} trainings a seed"))
        layers = [f"{key} {'-'.join(map(str, value))}" for key, value in model if isinstance(value, list)]
        inputs = "normalised inputs" if model.normalize else "inputs in [0, 1]"
        facts.append(("network", ", ".join([model.name, *layers, inputs])))
        if entry.pretraining:
            told = f"convolutions, on {entry.pretraining.dataset} (public), frozen"
            facts.append(("pre-training", f"{told}: {_recipe(entry.pretraining.training)}"))
        facts += [(algorithm, _recipe(training)) for algorithm, training in entry.training if trained]
        trainings = [run.training for run in study.trained(name).values() if run.training]
        if samplers := dict.fromkeys(training.sampling for training in trainings if training.private):
            told = "; ".join(f"{sampler}: for {PHRASES[ADJACENCIES[sampler][0]]}" for sampler in samplers)
            facts.append(("epsilon in legends", told))
        if groups := dict.fromkeys(training.coupled for training in trainings if training.coupled):
            facts.append((f"coupled ({', '.join(groups)})", COUPLED))
        if unofficial := study.unofficial(name):
            facts.append(("unofficial data", f"{', '.join(unofficial)}, by the SHA-256 in the config"))
    return facts


def _recipe(training: Any) -> str:
    text = f"epochs {training.epochs}, batch {training.batch_size} ({training.sampling}), lr {training.lr:g}"
    text += f", momentum {training.momentum:g}" if training.momentum else ""
    return text + (f", {' and '.join(training.augment)}" if training.augment else "")


def told(study: Study, display: Display) -> dict[str, Any]:
    """What a caption can tell, as `snakemake.params.told`."""
    title = display.settings.title
    sentence = title + "." if title and title[-1] not in ".?!" else title
    told: dict[str, Any] = {"title": sentence, "settings": display.settings.plain(), "seeds": len(study.seeds)}
    told["intervals"] = intervals(len(study.seeds))
    if not (dataset := getattr(display.settings, "dataset", None)):
        return told
    entry, metrics = study.dataset(dataset), display.asks("metrics")
    return told | {
        "dataset": dataset,
        "images": {metric: study.images(dataset, metric) or "all" for metric in metrics},
        "measured": {metric: getattr(entry.metrics, metric).plain() for metric in metrics},
        "trained": trained_for(run for _, run in display.runs),
        "delta": entry.privacy.deltas[0],
        "pretraining": entry.pretraining and entry.pretraining.plain(),
    }


def trained_for(runs: Iterable[Run]) -> str:
    """How long runs are trained, as text: ``epochs: 50 (SGD), 50 (DP-SGD)``."""
    epochs: dict[str, set[int]] = {}
    for run in runs:
        if run.training:
            epochs.setdefault(ALGORITHMS[run.algorithm], set()).add(run.training.epochs)
    told = [f"{' and '.join(map(str, sorted(numbers)))} ({name})" for name, numbers in epochs.items()]
    return f"epochs: {', '.join(told)}" if told else "trained elsewhere"
