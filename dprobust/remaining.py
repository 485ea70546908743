"""How long a run's jobs will still take, by what they or jobs like them took before. Needs no torch."""

import statistics
from collections.abc import Hashable, Mapping
from pathlib import Path

import pandas as pd


class Remaining:
    """The time that is left of a run.

    A job's time is guessed from the nearest that is known: the same job earlier, the median of the other seeds of its
    run, of its dataset, of its stage. Times are those of Snakemake's benchmark files, ``.../benchmarks/STAGE/...tsv``,
    and of the jobs of this run.

    Args:
        jobs: of each job that is to run its benchmark file, or None of one that is too short to have one.
        slots: how many jobs run side by side, at least 1.
    """

    def __init__(self, jobs: Mapping[Hashable, Path | None], slots: int) -> None:
        self._open = dict(jobs)
        self._slots = slots
        self._took: dict[Path, list[float]] = {}  # by file and by each folder above it
        for folder in {_benchmarks(path) for path in jobs.values() if path}:
            for file in sorted(folder.rglob("*.tsv")):
                if (seconds := _seconds(file)) is not None:
                    self._know(file, seconds)

    def _know(self, file: Path, seconds: float) -> None:
        for path in (file, *_folders(file)):
            self._took.setdefault(path, []).append(seconds)

    def finished(self, job: Hashable, seconds: float) -> None:
        """A job of the run has ended after so many seconds."""
        path = self._open.pop(job, None)
        if path:
            self._know(path, seconds)

    def guess(self, path: Path) -> float | None:
        """Seconds that the job of a benchmark file takes; None if nothing like it has ever run."""
        known = (self._took[near] for near in (path, *_folders(path)) if near in self._took)
        return statistics.median(found) if (found := next(known, None)) else None

    def left(
        self, running: Mapping[Hashable, float], ends: Mapping[Hashable, float] | None = None
    ) -> tuple[float, bool]:
        """What is left of the run.

        Args:
            running: jobs at work, with the seconds since their start.
            ends: of those that tell themselves, the seconds until their end.

        Returns:
            Seconds, and whether they are all: False where of some jobs nothing is known, so that it is longer.
        """
        ends, each, whole = ends or {}, [0.0], True
        alike: dict[Path, list[float]] = {}  # folder of a stage -> times by those that tell of their end
        for job, end in ends.items():
            if path := self._open.get(job):
                alike.setdefault(_folders(path)[-1], []).append(running.get(job, 0.0) + end)
        for job, path in self._open.items():
            if job in ends:
                each.append(ends[job])
            elif path:
                guess = self.guess(path)
                if guess is None and (found := alike.get(_folders(path)[-1])):
                    guess = statistics.median(found)
                whole &= guess is not None
                each.append(max((guess or 0.0) - running.get(job, 0.0), 0.0))
        return max(sum(each) / self._slots, max(each)), whole


def _benchmarks(path: Path) -> Path:
    return next((folder for folder in path.parents if folder.name == "benchmarks"), path.parent)


def _folders(path: Path) -> list[Path]:
    """The folders above a benchmark file, up to that of its stage; at least one."""
    stop = _benchmarks(path)
    return [folder for folder in path.parents if stop in folder.parents] or [path.parent]


def _seconds(file: Path) -> float | None:
    """The seconds that a benchmark file tells; None of one that is damaged."""
    try:
        seconds = float(pd.read_csv(file, sep="\t")["s"].iloc[-1])
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return seconds if seconds >= 0 else None


def told(seconds: float) -> str:
    """A duration in the two units that matter: "42 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
