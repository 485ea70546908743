"""The setting of malloc, by the page faults that it saves."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from dprobust import allocator

STEPS = """
import ctypes, resource, sys, torch
from dprobust.allocator import keep_memory
# What is large is mapped anew each time: without this it depends on the place of some small block.
ctypes.CDLL(None).mallopt(-3, 65536)
if sys.argv[1] == "kept":
    print(keep_memory())
def step():
    tensors = [torch.ones(3 * 2**20) for _ in range(4)]
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
"""


def run(how, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in allocator.SETTINGS}
    command = [sys.executable, "-c", STEPS, how]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_memory_is_kept_from_step_to_step():
    """48 MiB a step are 12,288 pages."""
    (faults,) = run("not")
    kept, fewer = run("kept")
    assert kept == "True" and float(fewer) < 100 and float(faults) > 5000
    assert run("kept", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")[0] == "False"


@pytest.mark.parametrize("functions", [(), ("mallopt",)])
def test_another_malloc_is_left_alone(monkeypatch, functions):
    """musl has no mallopt, and what has one without being glibc may mean something else by it."""

    def never(*_):
        raise AssertionError("called")

    library = type("Library", (), {name: staticmethod(never) for name in functions})()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert not allocator.keep_memory()
