"""Profiles for other machines: they hold what profiles/default does; and what a cluster says of a job is told right."""

import os
import re
import subprocess

import pytest
import yaml
from helpers import ROOT

PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/profile.yaml"))
STATUS = ROOT / "profiles" / "cluster-generic" / "status"


def profile(name):
    return yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text(encoding="utf-8"))


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {re.sub("[-_.]+", "-", line.partition("==")[0].lower()) for line in lines if "==" in line}


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "default"])
def test_a_profile_replaces_the_default_one_and_so_says_the_same(name):
    ours, default = profile(name), profile("default")
    del default["cores"]
    if name == "cluster-generic":  # takes up jobs that are at work still, by their numbers
        assert ours.pop("rerun-incomplete") is False and default.pop("rerun-incomplete")
    assert {key: ours.get(key) for key in default} == default
    if "executor" in ours:
        assert ours["executor"] == name and ours["cores"] == 1 and ours["retries"] and ours["group-components"]


def test_the_locks_do_not_say_the_same_twice():
    assert pins("requirements-cluster.txt") & pins("requirements.lock") == set()


@pytest.fixture
def status(tmp_path, monkeypatch):
    """How a job is, where a cluster's commands print what is given: the command's name -> what, with its exit code."""

    def ask(kind, **programs):
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        for name in ("qstat", "qacct", "bjobs", "squeue"):
            text, code = programs.get(name, ("", 1))
            (tools / name).write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\nexit {code}\n")
            (tools / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", str(STATUS), kind, "7"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or done.stderr.strip()

    return ask


ACCOUNTED = "qname all.q\nfailed       {failed}\nexit_status  {code}"
TABLE = "job-ID prior name user state\n--------\n      7 0.5 train me {state}  date"


@pytest.mark.parametrize(
    ("kind", "programs", "expected"),
    [
        ("sge", {"qstat": (TABLE.format(state="r"), 0)}, "running"),
        ("sge", {"qstat": (TABLE.format(state="qw"), 0)}, "running"),
        ("sge", {"qstat": (TABLE.format(state="Eqw"), 0)}, "failed"),
        ("sge", {"qacct": (ACCOUNTED.format(failed=0, code=0), 0)}, "success"),
        ("sge", {"qacct": (ACCOUNTED.format(failed=0, code=1), 0)}, "failed"),
        ("sge", {"qacct": (ACCOUNTED.format(failed="100 : assumedly after job", code=137), 0)}, "failed"),
        ("sge", {}, "running"),  # between queue and accounting
        ("lsf", {"bjobs": ("PEND", 0)}, "running"),
        ("lsf", {"bjobs": ("RUN", 0)}, "running"),
        ("lsf", {"bjobs": ("DONE", 0)}, "success"),
        ("lsf", {"bjobs": ("EXIT", 0)}, "failed"),
        ("lsf", {}, "running"),
        ("slurm", {"squeue": ("PENDING", 0)}, "running"),
        ("slurm", {"squeue": ("COMPLETED", 0)}, "success"),
        ("slurm", {"squeue": ("CANCELLED", 0)}, "failed"),
        ("pbs", {}, "status: no cluster of kind 'pbs'; there are sge, lsf, slurm"),
    ],
)
def test_status_of_a_job(status, kind, programs, expected):
    assert status(kind, **programs) == expected


def test_a_job_that_stays_unknown_has_failed(status):
    answers = [status("lsf") for _ in range(60)]
    assert answers == ["running"] * 59 + ["failed"]
    assert status("lsf") == "running"  # counted anew
