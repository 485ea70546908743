"""`make setup`: which Python, which torch, and why it failed. Python and pip are stand-ins, but in the last test."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from zipfile import ZipFile

import pytest
from helpers import ROOT

SPEC = importlib.util.spec_from_file_location("tools_setup", ROOT / "tools" / "setup.py")
setup = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(setup)

LOCK = "# pins\none==1.0\ntorch==9.1.2\ntorchvision==0.5\n"
PYTHON = f"""#!/bin/sh
# Calls of the stand-in's venv make .venv with a stand-in of pip; all else runs.
case "$1 $2" in
  "-m venv") echo venv >> "$HERE/calls"; cat "$HERE/venv.says" 2>/dev/null && exit 1
    mkdir -p "$3/bin" && cp "$HERE/pip" "$3/bin/python"; exit ;;
  tools/setup.py*) exec "{sys.executable}" "$HERE/driver.py" "$0" "$@" ;;
esac
exec "{sys.executable}" "$@"
"""
DRIVER = """
import runpy, sys
sys.executable = sys.argv.pop(1)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PIP = """#!/bin/sh
shift 3; echo "pip $*" >> "$HERE/calls"
cat "$HERE/pip.says" 2>/dev/null && exit 1
if [ -f "$HERE/slow" ]; then
  trap 'echo stopped >> "$HERE/calls"; exit 1' INT
  echo $$ > "$HERE/pid"; touch "$HERE/began"
  while [ -f "$HERE/slow" ]; do sleep 0.1; done
fi
exit 0
"""
OPTIONS = "--disable-pip-version-check --no-input --progress-bar off"


class Clone:
    """A folder with what set-up reads, and stand-ins beside it."""

    def __init__(self, folder):
        self.here = folder
        self.root = folder / "a clone"
        (self.root / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", self.root)
        shutil.copy(ROOT / "tools" / "setup.py", self.root / "tools")
        (self.root / "requirements.lock").write_text(LOCK)
        (folder / "driver.py").write_text(DRIVER)
        self.python = self.program("python", PYTHON)
        self.program("pip", PIP)
        self.stamp = self.root / ".venv" / ".ready"

    def program(self, name, text):
        path = self.here / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, *arguments, python=True, **environment):
        given = {**os.environ, "HERE": str(self.here), **environment}
        for name in ("TORCH", "TORCH_INDEX", "PYTHON", "MAKEFLAGS", "MAKELEVEL"):
            if name not in environment:
                given.pop(name, None)
        command = ["make", "setup", *([f"PYTHON={self.python}"] if python else []), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=given,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )

    def make(self, *arguments, **options):
        """Exit status and the lines of stderr that are not make's own."""
        process = self.start(*arguments, **options)
        _, errors = process.communicate(timeout=60)
        return process.returncode, [line for line in errors.splitlines() if not line.startswith("make: ***")]

    def age(self):
        """Make the stamp older than the lock."""
        os.utime(self.stamp, (1e9, 1e9))

    def calls(self):
        path = self.here / "calls"
        calls = path.read_text().replace(str(self.root), "ROOT").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


ALL = f"pip {OPTIONS} -r ROOT/requirements.lock"


def of_torch(build, index="https://download.pytorch.org/whl"):
    return f"pip {OPTIONS} --no-deps --index-url {index}/{build} torch==9.1.2+{build} torchvision==0.5"


@pytest.mark.parametrize(
    ("arguments", "environment", "calls"),
    [
        ([], {}, [ALL]),
        (["TORCH=pypi"], {}, [ALL]),
        (["TORCH=cpu"], {}, [of_torch("cpu"), ALL]),
        ([], {"TORCH": "cu130"}, [of_torch("cu130"), ALL]),
        (["TORCH=cpu"], {"TORCH_INDEX": "http://mirror/whl/"}, [of_torch("cpu", "http://mirror/whl"), ALL]),
    ],
    ids=["plain", "pypi", "cpu", "cuda-by-environment", "mirror"],
)
def test_what_pip_is_asked_for(clone, arguments, environment, calls):
    assert clone.make(*arguments, **environment) == (0, [])
    assert clone.stamp.exists() and clone.calls() == ["venv", *calls]


def test_macos_has_one_build():
    assert setup.torch_arguments("cpu", LOCK, "http://i", "Darwin") == []
    assert setup.torch_arguments("cpu", LOCK, "http://i", "Linux")[-2:] == ["torch==9.1.2+cpu", "torchvision==0.5"]


def test_it_is_made_again_for_what_differs_and_for_nothing_else(clone):
    lock = clone.root / "requirements.lock"
    clone.make("TORCH=cpu")
    assert len(clone.calls()) == 3
    for arguments in ([], ["TORCH=cpu"]):
        clone.age()  # as `git checkout` there and back does
        assert clone.make(*arguments) == (0, []) and clone.calls() == []
        assert clone.stamp.exists()
    lock.write_text(LOCK.replace("one==1.0", "one==1.1"))
    clone.age()
    clone.make()
    assert clone.calls() == ["venv", of_torch("cpu"), ALL]  # the choice of torch is kept
    clone.make("TORCH=pypi")
    assert clone.calls() == ["venv", ALL]
    (clone.root / ".venv" / "bin" / "python").unlink()
    clone.make()
    assert clone.calls() == ["venv", ALL]


def test_another_python_that_is_asked_for(clone):
    clone.make()
    state = clone.root / ".venv" / ".setup"
    mine = "{}.{}".format(*sys.version_info)
    state.write_text(state.read_text().replace(f'"{mine}"', '"3.10"'))
    clone.calls()
    clone.age()
    path = f"{clone.program('bin/python3.13', PYTHON).parent}:{os.environ['PATH']}"
    assert clone.make(python=False, PATH=path) == (0, []) and clone.calls() == []  # not asked for
    assert clone.make() == (0, []) and clone.calls() == ["venv", ALL]


RETRY = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f56bb221110>: Failed to "
    "establish a new connection: [Errno 111] Connection refused')': /simple/one/\n"
)
NONE = "ERROR: Could not find a version that satisfies the requirement one==1.0 (from versions: none)\n"
FAILURES = {
    "refused": (
        "Looking in indexes: http://me:secret@127.0.0.1:9/simple\n" + RETRY + NONE,
        r"no network, or no package index at http://127\.0\.0\.1:9/simple \(Connection refused\); call again .*"
        r"PIP_INDEX_URL, HTTPS_PROXY",
    ),
    "name": (
        RETRY.replace("[Errno 111] Connection refused", "[Errno -3] Temporary failure in name resolution") + NONE,
        r"no network, .* at https://pypi\.org/simple \(Temporary failure in name resolution\)",
    ),
    "proxy": (
        "WARNING: Retrying after connection broken by 'ProxyError('Cannot connect to proxy.', OSError('Tunnel "
        "connection failed: 403 Forbidden'))': /simple/one/\n" + NONE,
        r"no network, .*\(Tunnel connection failed: 403 Forbidden\)",
    ),
    "timeout": (
        "Downloading torch\nTraceback (most recent call last):\n  File x\npip._vendor.urllib3.exceptions."
        "ReadTimeoutError: HTTPSConnectionPool(host='files.pythonhosted.org', port=443): Read timed out.\n",
        r"no network, .*\(timed out\)",
    ),
    "closed": (NONE, r"no network or no index: pip finds no version of one==1\.0 .*PIP_NO_INDEX"),
    "no version": (
        NONE.replace("none", "0.8, 0.9"),
        r"https://pypi\.org/simple has no one==1\.0 for Python 3\.1\d\.\d+, \S+ \S+; it has 0\.8, 0\.9",
    ),
    "full": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        r"the disk is full \(.* GB free in .*\): make room, .*TORCH=cpu",
    ),
    "quota": ("OSError: [Errno 122] Disk quota exceeded: '/x'\n", r"the disk is full"),
    "read-only": (
        "ERROR: Could not install packages due to an OSError: [Errno 30] Read-only file system: '/v/lib'\n",
        r"/v/lib cannot be written; set up in a folder of yours",
    ),
    "constraint": (
        "ERROR: Cannot install torch\n    The user requested torch==9.1.2\n"
        "    The user requested (constraint) torch<9\n",
        r"pip's own settings .* ask for torch<9, against requirements\.lock",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_pip_is_one_line(clone, name):
    says, expected = FAILURES[name]
    (clone.here / "pip.says").write_text(says)
    code, errors = clone.make()
    assert code and len(errors) == 1 and not clone.stamp.exists()
    assert re.match(f"error: {expected}", errors[0]), errors[0]
    assert "secret" not in errors[0]
    assert (clone.root / ".venv" / "setup.log").read_text() == says


def test_a_failure_that_nobody_foresaw_shows_the_end_of_the_log(clone):
    (clone.here / "pip.says").write_text("\n".join(f"line {i}" for i in range(9)) + "\n")
    code, errors = clone.make()
    assert code and errors[:-1] == [f"line {i}" for i in range(4, 9)]
    assert errors[-1] == "error: could not set up .venv (exit status 1); whole log: .venv/setup.log"


def test_a_failure_of_venv_is_one_line(clone):
    (clone.here / "venv.says").write_text("Error: [Errno 13] Permission denied: '/r/.venv/bin'\n")
    code, errors = clone.make()
    assert code and len(errors) == 1 and errors[0].startswith("error: /r/.venv/bin cannot be written")


def test_a_full_disk_hides_nothing(monkeypatch):
    """Where not even the log could be written."""
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert setup.explain("", 1, "cpu").startswith("the disk is full (0.0 GB free in ")
    assert "TORCH=cpu" not in setup.explain("", 1, "cpu")


def test_the_mirror_of_torch_is_named_where_that_is_missing(clone):
    (clone.here / "pip.says").write_text("Looking in indexes: http://i/whl/cpu\n" + RETRY + NONE)
    code, (error,) = clone.make("TORCH=cpu")
    assert code and "http://i/whl/cpu (Connection refused)" in error and "TORCH_INDEX, HTTPS_PROXY" in error


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["INT", "TERM", "HUP"])
def test_interrupted_and_gone_on_with(clone, by):
    (clone.here / "slow").touch()
    process = clone.start("TORCH=cpu")
    until(lambda: (clone.here / "began").exists())
    os.killpg(process.pid, by)
    _, errors = process.communicate(timeout=30)
    assert process.returncode
    told = [line for line in errors.splitlines() if line.startswith("error:")]
    assert told == ["error: set-up interrupted; the next call goes on: what pip has downloaded is kept"]
    assert clone.calls() == ["venv", of_torch("cpu"), "stopped"]  # pip could remove its temporary files
    (clone.here / "slow").unlink()
    assert clone.make() == (0, []) and clone.calls() == ["venv", of_torch("cpu"), ALL]


def test_killed_outright_the_next_waits_for_what_it_left(clone):
    """pip goes on when its parent is killed: nothing clears the folder that it writes to."""
    (clone.here / "slow").touch()
    process = clone.start()
    until(lambda: (clone.here / "began").exists())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    clone.calls()
    second = clone.start()
    assert second.stdout.readline().startswith("Another set-up is at work here; waiting")
    assert clone.calls() == []
    (clone.here / "slow").unlink()
    pip = (clone.here / "pid").read_text()
    os.kill(int(pip), signal.SIGKILL)
    second.communicate(timeout=30)
    assert second.returncode == 0 and clone.calls() == ["venv", ALL]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_link_is_replaced_and_what_it_leads_to_stays(clone, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    (clone.root / ".venv").symlink_to(other)
    assert clone.make() == (0, [])
    assert not (clone.root / ".venv").is_symlink() and list(other.iterdir()) == [other / "file"]


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.0"])
def test_a_python_that_is_not_supported_is_named(clone, version):
    """It does no more than tell its version and refuse."""
    old = clone.program("old python", f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}"; exit 1\n')
    code, errors = clone.make(f"PYTHON={old}")
    assert code and len(errors) == 1
    assert errors[0].startswith(f"error: Python 3.11, 3.12 or 3.13 is needed, found: Python {version} ({old});")


def test_a_python_without_venv_is_told_what_to_install(clone):
    (clone.here / "ensurepip.py").write_text("raise ImportError")
    code, errors = clone.make(PYTHONPATH=str(clone.here))
    package = "python{}.{}-venv".format(*sys.version_info)
    assert code and len(errors) == 1 and errors[0].endswith(f"has no venv; on Debian or Ubuntu: apt install {package}")


NO_VENV = '#!/bin/sh\ncase "$2" in *venv*) exit 1 ;; esac\nexit 0\n'
BROKEN = '#!/bin/sh\necho "python: command not found" >&2; exit 127\n'
WORKS = "#!/bin/sh\nexit 0\n"


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"3.11": WORKS, "3.12": WORKS, "3.13": WORKS}, "python3.13"),
        ({"3.11": WORKS, "3.12": WORKS, "3.13": BROKEN}, "python3.12"),
        ({"3.11": WORKS, "3.12": NO_VENV}, "python3.11"),
        ({"3.11": NO_VENV}, "python3.11"),
        ({}, "python3"),
    ],
    ids=["newest", "shim-that-fails", "without-venv", "none-with-venv", "unversioned"],
)
def test_the_newest_python_that_works_is_chosen(clone, found, chosen):
    for version in ("3.11", "3.12", "3.13"):
        clone.program(f"bin/python{version}", found.get(version, BROKEN))
    clone.program("bin/python3", WORKS)
    path = f"{clone.here / 'bin'}:{os.environ['PATH']}"
    command = ["make", "--no-print-directory", "-f", "Makefile", "-f", "-", "which"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")} | {
        "PATH": path
    }
    done = subprocess.run(
        command, cwd=clone.root, env=environment, input="which:\n\t@echo $(PYTHON)\n", text=True, capture_output=True
    )
    assert done.stdout.strip() == str(clone.here / "bin" / chosen)


def test_a_wrong_build_of_torch_is_refused(clone):
    code, errors = clone.make("TORCH=gpu")
    assert code and len(errors) == 1 and errors[0].startswith("error: TORCH=gpu is no build of PyTorch: cpu, pypi")
    assert clone.calls() == []


def wheel(folder, name, version):
    """A wheel without content."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_the_real_pip_takes_the_build_asked_for(clone, tmp_path):
    """From folders as indexes: the lock's torch==9.1.2 is content with 9.1.2+cpu."""
    index, own = tmp_path / "index", tmp_path / "torch"
    for name, version in (("one", "1.0"), ("torch", "9.1.2"), ("torchvision", "0.5")):
        wheel(index / name, name, version)
    for name, version in (("torch", "9.1.2+cpu"), ("torchvision", "0.5+cpu")):
        wheel(own / "cpu" / name, name, version)
    environment = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.as_uri(), "TORCH_INDEX": own.as_uri()}
    environment |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    for folder in (*index.iterdir(), *(own / "cpu").iterdir()):
        links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in folder.iterdir())
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    code, errors = clone.make("TORCH=cpu", f"PYTHON={sys.executable}", python=False, **environment)
    assert (code, errors) == (0, [])
    installed = {path.name for path in (clone.root / ".venv").glob("lib/*/site-packages/*.dist-info")}
    assert {"one-1.0.dist-info", "torch-9.1.2+cpu.dist-info", "torchvision-0.5+cpu.dist-info"} <= installed
    found = json.loads((clone.root / ".venv" / ".setup").read_text())
    assert found["torch"] == "cpu" and found["lock"] == hashlib.sha256(LOCK.encode()).hexdigest()
