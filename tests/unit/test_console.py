"""What a run tells on the console, from events made by hand."""

import io
import logging
import time
from types import SimpleNamespace

import pytest
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from workflow import console as module
from workflow.console import Console

SEEDS = (0, 1, 2)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def record(event, message="", level=logging.INFO, **more):
    made = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    made.__dict__.update(event=event, **more)
    return made


def begun(id, log):
    wildcards = {"study": "s", "dataset": "mnist", "run": "sgd", "seed": str(id)}
    message = f"Training sgd on mnist, seed {id}"
    return record(LogEvent.JOB_INFO, jobid=id, rule_msg=message, rule_name="train", log=[str(log)], wildcards=wildcards)


def console(folder, stream, pulse=60.0, words="", end=None, result=""):
    jobs = {id: ("train", str(folder / f"benchmarks/train/mnist/sgd/{id}.tsv")) for id in SEEDS} | {9: ("report", None)}
    made = Console(stream, lambda: (jobs, 2), lambda job: words, lambda job: end, lambda job: result, pulse)
    made.handle(record(None, "Building DAG of jobs..."))
    made.handle(record(None, "Using shell: /bin/sh"))
    made.handle(record(LogEvent.RESOURCES_INFO, "Provided cores: 2"))
    made.handle(record(LogEvent.RUN_INFO, "Job stats: ...", stats={"train": 3, "report": 1, "total": 4}))
    return made


def test_a_line_a_job_and_the_time_left(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("workflow.console.time.monotonic", lambda: clock[0])
    made = console(tmp_path, stream := io.StringIO(), result="98.7 %")
    for id in (0, 1):
        made.handle(record(LogEvent.JOB_STARTED, "Execute 2 jobs...", jobs=[0, 1]))
        made.handle(begun(id, tmp_path / "none.log"))
        made.handle(record(LogEvent.SHELLCMD, "Shell command: None"))
    for id, clock[0] in ((0, 1042.0), (1, 1060.0)):
        made.handle(record(LogEvent.JOB_FINISHED, f"Finished jobid: {id}", job_id=id))
        made.handle(record(LogEvent.PROGRESS, done=id + 1, total=4))
        made.handle(record(None, "Select jobs to execute..."))
    made.handle(record(None, "Complete log(s): /x/y.log"))
    made.handle(record(None, "Elapsed time: 1"))
    made.close()
    assert stream.getvalue().splitlines() == [
        "Building DAG of jobs...",
        "4 jobs, up to 2 side by side: 3 train, 1 of other rules",
        "1 of 4  Training sgd on mnist, seed 0: 42 s, 98.7 %; about 42 s left",
        "2 of 4  Training sgd on mnist, seed 1: 60 s, 98.7 %; about 51 s left",
        "2 of 4 jobs done in 60 s",
        "Snakemake's own words, all of them: /x/y.log",
    ]


def test_a_failed_job_shows_the_end_of_its_log(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("".join(f"line {i}\n" for i in range(40)) + "error: C: found -1\n")
    made = console(tmp_path, stream := io.StringIO())
    made.handle(begun(0, log))
    made.handle(record(LogEvent.ERROR, "RuleException:\nCalledProcessError", logging.ERROR, exception="RuleException"))
    failed = {"jobid": 0, "rule_name": "train", "log": [str(log)]}
    made.handle(record(LogEvent.JOB_ERROR, "Error in rule train", logging.ERROR, **failed))
    made.handle(record(None, "Trying to restart job 0."))
    made.handle(record(LogEvent.ERROR, "WorkflowError:\nother", logging.ERROR, exception="WorkflowError"))
    made.close()
    lines = stream.getvalue().splitlines()[2:]
    assert lines[0] == "FAILED after 0 s: Training sgd on mnist, seed 0"
    assert lines[1] == f"    its log, {log}, ends with" and lines[2] == "    line 26"
    assert lines[16:] == ["    error: C: found -1", "Trying to restart job 0.", "WorkflowError:", "other"]


@pytest.mark.parametrize(("content", "words"), [("", "is empty"), (None, "it left no log"), (b"\xff\n", "says")])
def test_a_failed_job_whose_log_tells_nothing(tmp_path, content, words):
    log = tmp_path / "train.log"
    if content is not None:
        log.write_bytes(content if isinstance(content, bytes) else content.encode())
    made = console(tmp_path, stream := io.StringIO())
    made.handle(record(LogEvent.JOB_ERROR, "", logging.ERROR, jobid=7, rule_name="train", log=[str(log)]))
    made.close()
    assert "FAILED: train" in stream.getvalue() and words in stream.getvalue()


def test_a_failed_group(tmp_path):
    made = console(tmp_path, stream := io.StringIO())
    made.handle(begun(1, "x.log"))
    info = [{"jobid": 1, "rule_name": "train", "log": ["x.log"], "output": []}]
    made.handle(record(LogEvent.GROUP_ERROR, "Error in group", logging.ERROR, aux_logs=[], job_error_info=info))
    made.close()
    assert "FAILED, one of a group: Training sgd on mnist, seed 1" in stream.getvalue()


def test_where_nothing_is_said_for_long_it_tells_what_is_at_work(tmp_path):
    made = console(
        tmp_path, stream := io.StringIO(), pulse=0.05, words="epoch 3 of 20, 91.2 %, epsilon 0.83", end=300.0
    )
    made.handle(begun(2, "x.log"))
    deadline = time.monotonic() + 20
    while "at work" not in stream.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    made.close()
    line = next(line for line in stream.getvalue().splitlines() if "at work" in line)
    words = "epoch 3 of 20, 91.2 %, epsilon 0.83"  # 300 s of this one and twice 300 s of its like, two at once
    assert line == f"0 of 4; about 8 min left; at work: Training sgd on mnist, seed 2 ({words})"


def test_a_terminal_has_one_line_that_is_kept_up_to_date(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    made = console(tmp_path, stream := Terminal(), words="epoch 1 of 2")
    made.handle(begun(0, "x.log"))
    deadline = time.monotonic() + 20
    while "at work" not in stream.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    made.handle(record(None, "a warning", logging.WARNING))
    made.close()
    _, below, rest = stream.getvalue().partition("\r\x1b[2K0 of 4; at work: Training sgd")
    assert below and "\n" not in rest.partition("\r\x1b[2K")[0]
    assert "\r\x1b[2Ka warning\n" in rest and rest.endswith("\r\x1b[2K")  # cleared before a line and at the end
    assert all(len(part) <= 39 for part in rest.split("\r\x1b[2K") if "at work" in part)


@pytest.mark.parametrize(
    ("asked", "takes"),
    [({}, True), *(({name: True}, False) for name in ("dryrun", "verbose", "printshellcmds", "debug_dag", "quiet"))],
)
def test_it_stands_back_for_what_the_user_asks(asked, takes, monkeypatch):
    own = logging.StreamHandler()
    own.name = "DefaultStreamHandler"
    monkeypatch.setattr(logger, "handlers", [own])
    monkeypatch.setattr(logger, "propagate", True)
    settings = dict.fromkeys(("dryrun", "verbose", "printshellcmds", "debug_dag", "quiet"), False) | asked
    module.take(SimpleNamespace(output_settings=SimpleNamespace(**settings)), None)
    assert [type(handler) for handler in logger.handlers] == [Console if takes else logging.StreamHandler]
    assert logger.propagate != takes  # a library that attaches a handler to the root repeats no words


def test_it_stands_back_for_another_logger(monkeypatch):
    monkeypatch.setattr(logger, "handlers", [plugin := logging.NullHandler()])
    module.take(SimpleNamespace(output_settings=SimpleNamespace(dryrun=False)), None)
    assert logger.handlers == [plugin]
