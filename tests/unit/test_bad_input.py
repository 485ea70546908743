"""Wrong configs and command lines: each is refused in one line that names the key or the file."""

import copy
import shutil
import subprocess

import bad_input
import pytest
import torch
import yaml
from helpers import ROOT
from safetensors import SafetensorError
from safetensors.torch import save_file

from dprobust import asked, schema, study
from dprobust.errors import UserError
from dprobust.files import replaced
from dprobust.registry import Registry
from dprobust.study import ConfigError, Study

PAPER = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
ROWS = list(bad_input.rows())


def own(registry):
    return registry.packages != Registry().packages


def keys(dotted):
    section, _, rest = dotted.partition(".")
    head, _, last = rest.partition(".")
    if section in ("figures", "tables") and head not in ("fig2", "table1"):
        return [section, rest]  # a name may hold anything
    return dotted.split(".") if last or rest else [section]


@pytest.fixture(scope="module")
def cls():
    """The class of all these configs, which takes longer to make than to use."""
    return schema.study_class(Registry())


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_wrong_config_is_refused_in_one_line(row, cls, monkeypatch):
    monkeypatch.setattr(study, "study_class", lambda registry: schema.study_class(registry) if own(registry) else cls)
    dotted, value = ROWS[row]
    config = copy.deepcopy(PAPER)
    *above, last = keys(dotted)
    at = config
    for key in above:
        at = at.setdefault(key, {})
    at[last] = config[above[0]][value[5:]] if isinstance(value, str) and value.startswith("like ") else value
    with pytest.raises(ConfigError) as error:
        Study(config)
    text = str(error.value)
    assert len(text.splitlines()) == 1 and len(text) <= 300
    assert last in text or above and above[-1] in text


def test_there_are_enough():
    assert len(ROWS) >= 150


FILES = {
    "syntax": (b"a: [1\nb: 2\n", "line 2: not YAML"),
    "tab": (b"study: x\n\tlabel: y\n", "line 2: not YAML"),
    "empty": (b"", "found nothing, expected keys"),
    "list": (b"- 1\n", "found a list, expected keys"),
    "scalar": (b"7\n", "found a int, expected keys"),
    "twice": (b"study: a\nlabel: x\nstudy: b\n", "line 3: 'study' stands there twice; remove one"),
    "twice below": (b"a:\n  b: 1\n  b: 2\n", "line 3: 'b' stands there twice"),
    "Latin-1": (b"study: a\nlabel: caf\xe9\n", "line 2: found a byte that is not UTF-8"),
    "control": (b"study: \x00\n", "not YAML"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_config_file_is_named_with_its_line(name, tmp_path):
    content, told = FILES[name]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.yaml") as error:
        asked.check_config_file(path)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_config_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nope\.yaml: no such file"):
        asked.check_config_file(tmp_path / "nope.yaml")
    with pytest.raises(UserError, match="a folder; name a file in it"):
        asked.check_config_file(tmp_path)


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_good_config_files_pass(path):
    asked.check_config_file(path)


def test_targets_cores_and_profiles(tmp_path):
    with pytest.raises(UserError, match="target 'fig99': .*did you mean fig9"):
        asked.check_targets(["fig99"], {"fig9": None, "all": None}, lambda path: False)
    asked.check_targets(["fig9", "results/x.csv"], {"fig9": None}, lambda path: path == "results/x.csv")
    for cores in (0, -3):
        with pytest.raises(UserError, match=f"--cores: found {cores}, must be at least 1"):
            asked.check_cores(cores)
    asked.check_cores(1)
    with pytest.raises(UserError, match="nowhere: no profile.yaml there"):
        asked.check_profile(["--workflow-profile", "nowhere"])
    with pytest.raises(UserError, match="nowhere: no profile.yaml there"):
        asked.check_profile(["fig2", "--workflow-profile=nowhere"])
    asked.check_profile(["--workflow-profile", str(ROOT / "profiles" / "default"), "--workflow-profile=none"])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


WRITERS = {
    "safetensors": lambda path: save_file({"w": torch.zeros(100_000)}, path),
    "python": lambda path: path.write_bytes(bytes(400_000)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_with_the_file(writer, small_disk):
    path = small_disk / "model.safetensors"
    with pytest.raises(OSError, match="No space left on device") as error, replaced(path) as temporary:
        WRITERS[writer](temporary)
    assert error.value.filename == str(path) and not path.exists()


def test_a_full_disk_is_told_where_nothing_can_be_mounted(tmp_path):
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="No space left on device") as error, replaced(tmp_path / "x"):
        raise SafetensorError(text)
    assert error.value.filename == str(tmp_path / "x")
