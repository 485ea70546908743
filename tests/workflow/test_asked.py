"""Wrong command lines and config files, as typed: at most six lines, one of which names the fault."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

FILES = {  # more of them in tests/unit/test_bad_input.py
    "syntax.yaml": (b"a: [1\nb: 2\n", "syntax.yaml, line 2: not YAML"),
    "empty.yaml": (b"", "empty.yaml: found nothing, expected keys"),
    "latin.yaml": (b"study: a\nlabel: caf\xe9\n", "latin.yaml, line 2: found a byte that is not UTF-8"),
    "folder.yaml": (None, "folder.yaml: a folder; name a file in it"),
    "private.yaml": (
        b"datasets: {mnist: {pretraining: {dataset: mnist}}}",
        "config: datasets.mnist.pretraining.dataset: mnist is what is to be kept private",
    ),
}
CALLS = {
    "config": ("--config foo", "--config: Invalid config definition: Config entries have to be defined as name=value"),
    "config list": ("--config seeds=0", "config: seeds: found 0, expected list"),
    "target after": ("--configfile presets/demo.yaml fig2", "fig2: no such file; all that follows --configfile"),
    "pattern": (
        "train",
        "target 'train': its files are many, results/{study}/models/{dataset}/{run}/seed={seed}/model",
    ),
    "unknown": ("fig99", "target 'fig99': neither a rule nor a file that a rule makes; did you mean"),
    "cores": ("--cores 0", "--cores: found 0, must be at least 1"),
    "negative": ("--cores=-3", "--cores: found -3, must be at least 1"),
    "profile": ("--workflow-profile profiles/nowhere", "--workflow-profile profiles/nowhere: no profile.yaml there"),
}


def refused(folder, *arguments, program=(sys.executable, "-m", "snakemake")):
    command = [*program, *arguments, "-n", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in output and len(output.splitlines()) <= 6, output
    return output


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_that_is_none(name, tmp_path):
    content, told = FILES[name]
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    (runs := tmp_path / "runs").mkdir()
    assert told in refused(runs, "--configfile", str(tmp_path / name))
    assert not [path for path in runs.rglob("*") if ".snakemake" not in path.parts]


def test_by_the_installed_program(tmp_path):
    """Whose import path begins with another folder than the one it is called in."""
    program = Path(sys.executable).with_name("snakemake")
    if not program.exists():
        pytest.skip("snakemake is not installed as a program")
    told = refused(tmp_path, "--configfile", "nope.yaml", program=(str(program),))
    assert "error: nope.yaml: no such file" in told


@pytest.mark.parametrize("name", CALLS)
def test_a_command_line_that_asks_for_nothing(name, tmp_path):
    arguments, told = CALLS[name]
    assert told in refused(tmp_path, *arguments.split())


def test_with_another_profile_the_duplicate_is_still_found(tmp_path):
    (twice := tmp_path / "twice.yaml").write_text("label: a\nlabel: b\n")
    (profile := tmp_path / "mine").mkdir()
    (profile / "profile.yaml").write_text("cores: 1\n")
    told = refused(tmp_path, "--workflow-profile", str(profile), "--configfile", str(twice))
    assert "twice.yaml, line 2: 'label' stands there twice" in told
