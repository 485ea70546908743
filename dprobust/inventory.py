"""The jobs of a study one by one: what each makes, from what, and by which specification. Needs neither torch nor
Snakemake."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dprobust.plan import ARRAYS, MODEL, PRETRAINED, PRETRAINING, PRIVACY, RECORD, TRAINED, Plan, Spec, key

MADE = ("pretrain", "train", "account", "measure")
"""Stages whose results displays are made from."""


@dataclass(frozen=True)
class Job:
    """A job of a study.

    Attributes:
        stage: one of `MADE`, or "show".
        rule: the name of its rule.
        about: what it is of: dataset, run, seed, metric, or display.
        spec: what defines its result.
        params: the parameters of its rule, in the rule's order.
        inputs, outputs: paths as the rule has them.
    """

    stage: str
    rule: str
    about: Mapping[str, str]
    spec: Spec
    params: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key of its specification."""
        return key(self.spec)

    @property
    def name(self) -> str:
        """For people: ``measure mnist/sgd/seed=0/fgsm``; jobs have different names."""
        told = [f"seed={value}" if name == "seed" else value for name, value in self.about.items()]
        return f"{self.stage} {'/'.join(told)}"


def made(plan: Plan) -> list[Job]:
    """The jobs whose results the displays of a study are made from, each once."""
    return [*_pretrained(plan), *_trained(plan), *_accounted(plan), *_measured(plan)]


def shown(plan: Plan) -> list[Job]:
    """The displays of a study."""
    return [
        Job(
            "show",
            display.target,
            {"display": display.name},
            spec := plan.show(display.name),
            (spec, plan.told(display)),
            tuple(_flat(plan.show_inputs(display))),
            tuple(plan.shown(display).values()),
        )
        for display in plan.study.displays.values()
    ]


def read(plan: Plan) -> list[str]:
    """The files of its results that the displays of a study read, once each."""
    paths = [path for display in plan.study.displays.values() for path in _flat(plan.show_inputs(display))]
    return [path for path in dict.fromkeys(paths) if path.startswith(f"results/{plan.study.name}/")]


def headline(plan: Plan) -> list[str]:
    """The models of the first figure, of the first seed, and all pre-trained convolutions."""
    study, found = plan.study, {}
    displays = [*study.section("figures"), *study.displays.values()]
    for dataset, run in next((d.runs for d in displays if any(run.training for _, run in d.runs)), ()):
        if run.training:
            found |= dict.fromkeys(plan.files(MODEL, dataset=dataset, run=run.base, seed=study.seeds[0]))
    for job in _pretrained(plan):
        found[job.outputs[0]] = None
    return list(found)


def _pretrained(plan: Plan) -> Iterator[Job]:
    for dataset, entry in plan.study.datasets.items():
        if entry.pretraining and plan.study.trained(dataset):
            spec = plan.pretrain(dataset)
            inputs = tuple(plan.public_examples(dataset, split) for split in ("train", "test"))
            outputs = _paths(plan, (PRETRAINED, PRETRAINING), dataset=dataset)
            yield Job("pretrain", "pretrain", {"dataset": dataset}, spec, (spec,), inputs, outputs)


def _trained(plan: Plan) -> Iterator[Job]:
    groups = {member: (number, group) for number, group in enumerate(plan.together) for member in group}
    for dataset in plan.study.datasets:
        for run in plan.study.trained(dataset):
            for seed in plan.study.seeds:
                spec, rule = plan.train(dataset, run), "train"
                params, inputs = (spec,), plan.training_inputs(dataset, run, seed)
                if (dataset, run, seed) in groups:
                    number, group = groups[dataset, run, seed]
                    rule = f"train_together_{number}"
                    params = ([plan.train(*member[:2]) for member in group], group)
                    inputs = plan.training_inputs(*group[0])
                about = {"dataset": dataset, "run": run, "seed": str(seed)}
                outputs = _paths(plan, (MODEL, TRAINED), **about)
                yield Job("train", rule, about, spec, params, tuple(inputs.values()), outputs)


def _accounted(plan: Plan) -> Iterator[Job]:
    wanted = set(read(plan))
    for dataset in plan.study.datasets:
        for run in plan.study.trained(dataset):
            (output,) = _paths(plan, (PRIVACY,), dataset=dataset, run=run)
            if output in wanted:
                spec = plan.account(dataset, run)
                inputs = tuple(plan.files(TRAINED, dataset=dataset, run=run, seed=plan.study.seeds))
                yield Job("account", "account", {"dataset": dataset, "run": run}, spec, (spec,), inputs, (output,))


def _measured(plan: Plan) -> Iterator[Job]:
    records = dict.fromkeys(
        (dataset, run.name, seed, metric)
        for display in plan.study.displays.values()
        for metric, dataset, run in display.measured
        for seed in plan.study.seeds_of(run)
    )
    for dataset, run, seed, metric in records:
        spec = plan.measure(dataset, run, metric)
        inputs = tuple(plan.measure_inputs(dataset, run, seed, metric).values())
        about = {"dataset": dataset, "run": run, "seed": str(seed), "metric": metric}
        outputs = _paths(plan, (RECORD, ARRAYS, RECORD.replace(".csv", ".json")), **about)
        yield Job("measure", "measure", about, spec, (spec,), inputs, outputs)


def _paths(plan: Plan, patterns: tuple[str, ...], **values: str) -> tuple[str, ...]:
    return tuple(plan.files(pattern, **values)[0] for pattern in patterns)


def _flat(inputs: Mapping[str, list[str] | str]) -> list[str]:
    return [path for value in inputs.values() for path in ([value] if isinstance(value, str) else value)]


def relative(plan: Plan, path: str) -> str:
    """A path of the study's results, from their folder on."""
    return str(Path(path).relative_to(f"results/{plan.study.name}"))
