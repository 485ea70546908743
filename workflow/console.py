"""What a run tells on the console: a line a job, a total with the time left, and why a job failed.

It takes the place of Snakemake's own words, some ten lines a job, which all go to the file in ``.snakemake/log/``. With
``--verbose``, ``--printshellcmds``, ``--quiet``, ``--dry-run`` or another logger (``--logger rich``) it stands back.
"""

import logging
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from dprobust.plan import Plan
from dprobust.progress import SoFar, so_far, test_accuracy
from dprobust.remaining import Remaining, told

SAID = ("Trying to restart", "Shutting down", "Terminating processes", "Will exit after finishing")
"""How those of Snakemake's messages begin that are shown while jobs run, besides warnings and errors."""
SET_UP = ("Using shell", "Conda environments: ignored", "Assuming unrestricted shared filesystem")
"""How those begin that are left out before."""
TAIL = 15
"""Lines of a failed job's log that are shown."""


@dataclass
class Job:
    """A job at work."""

    message: str
    log: list[str]
    rule: str
    wildcards: dict[str, str]
    started: float


class Console(logging.Handler):
    """Takes the events of a run and writes lines.

    Args:
        stream: where the lines go; on a terminal, what is at work stands below them and is kept up to date.
        jobs: of the run that is about to start, id -> rule and benchmark file or None; how many run side by side.
        words: where a job is; "" if it does not tell. It may take its time.
        end: seconds to a job's end, by what it tells itself, or None.
        ended: a word about the result of a job that has ended well, or "".
        pulse: seconds without a line after which one tells what is at work, where the stream is no terminal.
    """

    def __init__(
        self,
        stream: TextIO,
        jobs: Callable[[], tuple[dict[int, tuple[str, str | None]], int]],
        words: Callable[[Job], str],
        end: Callable[[Job], float | None],
        ended: Callable[[Job], str],
        pulse: float = 60.0,
    ) -> None:
        super().__init__(logging.INFO)
        self._stream, self._jobs, self._words, self._end_of, self._ended = stream, jobs, words, end, ended
        self._live = stream.isatty()
        self._pulse = 1.0 if self._live else pulse
        self._shown = ""
        self._running: dict[int, Job] = {}
        self._remaining: Remaining | None = None
        self._total = self._done = self._failed = 0
        self._started = self._said = time.monotonic()
        self._over = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of an event, if it is one to be told of."""
        try:
            event = getattr(record, "event", None)
            handlers = {
                LogEvent.RUN_INFO: self._begin,
                LogEvent.JOB_INFO: self._job,
                LogEvent.JOB_FINISHED: self._finish,
                LogEvent.JOB_ERROR: self._fail,
                LogEvent.GROUP_ERROR: self._fail_group,
            }
            if event in handlers:
                handlers[event](record)
            elif event == LogEvent.ERROR and getattr(record, "exception", "") == "RuleException":
                pass  # the job that failed is told of by itself
            elif event in (None, LogEvent.ERROR) or record.levelno >= logging.WARNING:
                self._message(record)
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """End what keeps the lines up to date."""
        self._over.set()
        self._show("")
        super().close()

    def _message(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Complete log(s): "):
            self._end(text.partition(": ")[2])
        elif record.levelno >= logging.WARNING:
            self._write(text)
        elif self._remaining:
            if text.startswith(SAID):
                self._write(text)
        elif not text.startswith((*SET_UP, "Elapsed time")):
            self._write(text)

    def _begin(self, record: logging.LogRecord) -> None:
        jobs, slots = self._jobs()
        files = {job: Path(file) if file else None for job, (_, file) in jobs.items()}
        self._remaining, self._total, self._started = Remaining(files, slots), len(jobs), time.monotonic()
        rules = Counter(rule for rule, _ in jobs.values())
        shown = [f"{number} {rule}" for rule, number in rules.items() if number > 1]
        if alone := sum(number == 1 for number in rules.values()):
            shown.append(f"{alone} of other rules" if shown else f"{', '.join(rules)}")
        if jobs:
            self._write(f"{len(jobs)} jobs, up to {slots} side by side: {', '.join(shown)}{self._left()}")
        threading.Thread(target=self._keep_telling, daemon=True).start()

    def _job(self, record: logging.LogRecord) -> None:
        if self._remaining and (message := record.rule_msg):
            job = Job(message, list(record.log), record.rule_name, dict(record.wildcards), time.monotonic())
            self._running[record.jobid] = job

    def _finish(self, record: logging.LogRecord) -> None:
        job = self._running.pop(record.job_id, None)
        if job and self._remaining:
            self._done += 1
            seconds = time.monotonic() - job.started
            self._remaining.finished(record.job_id, seconds)
            result = self._ended(job)
            self._write(f"{self._count()}  {job.message}: {told(seconds)}{result and ', '}{result}{self._left()}")

    def _fail(self, record: logging.LogRecord) -> None:
        job = self._running.pop(record.jobid, None)
        self._failed += 1
        after = f" after {told(time.monotonic() - job.started)}" if job else ""
        self._write(f"FAILED{after}: {job.message if job else record.rule_name}")
        self._tail(record.log)

    def _fail_group(self, record: logging.LogRecord) -> None:
        self._failed += 1
        failed = record.job_error_info
        jobs = [self._running.pop(info["jobid"], None) for info in failed]
        self._write(f"FAILED, one of a group: {'; '.join(job.message for job in jobs if job) or record.getMessage()}")
        self._tail([*record.aux_logs, *(log for info in failed for log in info["log"])])

    def _tail(self, logs: list[str]) -> None:
        for log in logs:
            try:
                lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                self._write(f"    it left no log {log}")
                continue
            ends = "ends with" if len(lines) > TAIL else "says" if lines else "is empty: the job was killed"
            self._write("\n    ".join([f"    its log, {log}, {ends}", *lines[-TAIL:]]))

    def _end(self, logs: str) -> None:
        self._over.set()
        self._show("")
        if self._remaining:
            failed = f", {self._failed} failed" if self._failed else ""
            self._write(f"{self._count()} jobs done in {told(time.monotonic() - self._started)}{failed}")
        self._write(f"Snakemake's own words, all of them: {logs}")

    def _count(self) -> str:
        width = len(str(self._total))
        return f"{self._done:>{width}} of {self._total}"

    def _left(self) -> str:
        """The time left, as it ends a line; nothing while nothing is known."""
        now = time.monotonic()
        ends = {id: end for id, job in self._running.items() if (end := self._end_of(job)) is not None}
        seconds, whole = self._remaining.left({id: now - job.started for id, job in self._running.items()}, ends)
        if seconds < 1:
            return ""
        return f"; {'about' if whole else 'more than'} {told(seconds)} left"

    def _at_work(self) -> str:
        jobs = list(self._running.values())  # another thread's to change
        parts = [f"{job.message} ({self._words(job) or told(time.monotonic() - job.started)})" for job in jobs]
        return f"at work: {'; '.join(parts)}" if parts else ""

    def _keep_telling(self) -> None:
        """What is at work: below the lines on a terminal, else a line where there was none for long."""
        while not self._over.wait(self._pulse):
            if not self._live and time.monotonic() - self._said < self._pulse:
                continue
            try:
                text = self._at_work()
                with self.lock:
                    line = f"{self._count()}{self._left()}; {text}" if text and not self._over.is_set() else ""
                    if self._live:
                        self._show(line)
                    elif line:
                        self._write(line)
            except Exception as error:  # files that change as they are read; the run does not depend on these words
                logging.getLogger(__name__).debug("%s", error)

    def _write(self, text: str) -> None:
        below, self._said = self._shown, time.monotonic()
        self._show("")
        self._stream.write(f"{text}\n")
        self._stream.flush()
        self._show(below)

    def _show(self, text: str) -> None:
        """Put a text below the lines of a terminal, in the place of the one that stands there."""
        if self._live and text != self._shown:
            width = shutil.get_terminal_size().columns - 1
            cut = text if len(text) <= width else f"{text[: width - 1]}…"
            self._stream.write(f"\r\x1b[2K{cut}" if cut else "\r\x1b[2K")
            self._stream.flush()
        self._shown = text


def take(workflow: Any, plan: Plan) -> None:
    """Put a `Console` in the place of Snakemake's own handler, unless the user asks for other words than these."""
    asked = workflow.output_settings
    own = next((handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"), None)
    if own is None or any((asked.dryrun, asked.verbose, asked.printshellcmds, asked.debug_dag, asked.quiet)):
        return

    def jobs() -> tuple[dict[int, tuple[str, str | None]], int]:
        dag = workflow.dag
        found = {
            dag.jobid(job): (job.rule.name, job.benchmark and str(job.benchmark))
            for job in dag.needrun_jobs()
            if job.message
        }
        slots = (workflow.cores if workflow.local_exec else workflow.nodes) or 1
        return found, max(1, min(slots, len(found)))

    logger.propagate = False  # to what libraries of the accountants attach to the root of all loggers
    logger.removeHandler(own)
    logger.addHandler(Console(own.stream, jobs, partial(_words, plan), partial(_end, plan), partial(_ended, plan)))


def _training(job: Job) -> dict[str, str] | None:
    """Dataset, run and seed of a training."""
    return {name: job.wildcards[name] for name in ("dataset", "run", "seed")} if job.rule == "train" else None


def _so_far(plan: Plan, job: Job, spent: bool) -> SoFar | None:
    training = _training(job)
    try:
        return so_far(plan, **training, spent=spent) if training else None
    except ValueError:  # a checkpoint that is damaged: the training starts over
        return None


def _words(plan: Plan, job: Job) -> str:
    found = _so_far(plan, job, spent=True)
    return str(found) if found else _last_word(job.log[0]) if job.log else ""


def _end(plan: Plan, job: Job) -> float | None:
    found = _so_far(plan, job, spent=False)
    return found.left if found else None


def _ended(plan: Plan, job: Job) -> str:
    training = _training(job)
    accuracy = test_accuracy(plan, **training) if training else None
    return "" if accuracy is None else f"{100 * accuracy:.1f} %"


def _last_word(log: str) -> str:
    """The last line of a job's log, without the time at its beginning; "" without one."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return re.sub(r"^\d{4}-\d\d-\d\d \S+ ", "", lines[-1])[:200] if lines else ""
