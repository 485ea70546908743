"""What a display asks for of its study: records, trainings, and what casts doubt on the runs that it shows."""

from collections.abc import Iterable

from dprobust.runs import Run
from dprobust.study import Display, Study


def records(study: Study, display: Display) -> list[tuple[str, str, Run, int]]:
    """What a display shows, as (metric, dataset, run, seed)."""
    return [(metric, dataset, run, seed) for metric, dataset, run in display.measured for seed in study.seeds_of(run)]


def trained(study: Study, display: Display, private: bool = False) -> Iterable[tuple[str, str]]:
    """(dataset, name) of the trained runs of a display, once each."""
    chosen = [(dataset, run) for dataset, run in display.runs if run.training]
    return dict.fromkeys((dataset, run.base) for dataset, run in chosen if run.private or not private)


def accounted(study: Study, display: Display, private: bool = False) -> Iterable[tuple[str, str]]:
    """(dataset, name) of the runs whose privacy a display shows, once each."""
    if not display.asks("privacy"):
        return []
    if display.accounts is None:
        return trained(study, display, private)
    return dict.fromkeys((dataset, run.base) for dataset, run in display.accounts if run.training)


def pretrained(study: Study, display: Display) -> list[str]:
    """The datasets of a display whose networks have pre-trained layers."""
    datasets = dict.fromkeys(dataset for dataset, _ in trained(study, display))
    return [dataset for dataset in datasets if study.dataset(dataset).pretraining]


def needs(study: Study, display: Display) -> dict[str, str]:
    """Files that a display needs besides records: key -> path."""
    asks = getattr(study.registry.display(display.settings.shows), "needs", None)
    if not asks:
        return {}
    dataset = getattr(display.settings, "dataset", None)
    return dict(asks(display.settings, dataset and study.source(dataset)))


def doubts(study: Study, display: Display) -> dict[str, list[tuple[str, Run, int]]]:
    """Metrics that cast doubt on runs of a display that marks such runs -> what of them some display shows anyway, as
    (dataset, run, seed). A whole run measures nothing for the marks alone; nothing is ever trained for them."""
    found: dict[str, list[tuple[str, Run, int]]] = {}
    if not display.asks("flags"):
        return found
    own = {run.base for _, run in display.runs}
    for metric, dataset, run in dict.fromkeys(of for other in study.displays.values() for of in other.measured):
        if (dataset, run) not in display.runs or not getattr(study.registry.metric(metric), "FLAGS", False):
            continue
        if all(other.weights or other.base in own for other in study.others(dataset, run.name, metric)):
            found.setdefault(metric, []).extend((dataset, run, seed) for seed in study.seeds_of(run))
    return found
