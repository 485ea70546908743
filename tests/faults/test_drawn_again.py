"""Displays and the report, made again in fresh processes: the same bytes."""

import os
import subprocess
import sys

from clones import STUDY, Clone

DRAW = """
import sys
from pathlib import Path

import yaml
from snakemake.utils import update_config

from dprobust.plan import Plan
from dprobust.stages.show import show
from dprobust.study import Study

study, folder = sys.argv[1], Path(sys.argv[2])
config = {}
for path in ("config.yaml", study):
    update_config(config, yaml.safe_load(Path(path).read_text(encoding="utf-8")))
plan = Plan(Study(config), Path("workflow/scripts"))
for display in plan.study.displays.values():
    inputs = {
        name: [Path(path) for path in (value if isinstance(value, list) else [value])]
        for name, value in plan.show_inputs(display).items()
    }
    show(plan.show(display.name), inputs, {suffix: folder / path for suffix, path in plan.shown(display).items()})
"""


def test_five_times_in_fresh_processes(whole, tmp_path):
    parts = ("figures", "tables", "pages")
    expected = {
        name: digest
        for name, digest in whole.made.items()
        if name.split("/")[2:3] and name.split("/")[2] in parts and not name.endswith(".sha256")
    }
    assert sum(name.endswith(".png") for name in expected) == 3 and len(expected) > 15
    for i in range(5):
        folder = tmp_path / str(i)
        command = [sys.executable, "-c", DRAW, str(STUDY), str(folder)]
        subprocess.run(command, cwd=whole.folder, check=True, env=os.environ | {"PYTHONHASHSEED": str(i)})
        drawn = Clone(folder)
        assert drawn.contents() == expected, f"drawing {i}"
