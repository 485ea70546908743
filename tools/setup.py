"""Set up .venv from requirements.lock; where that fails, say why in one line. For `make setup`; imports no package.

    python3.12 tools/setup.py [TORCH [ORIGIN]]

TORCH is the build of PyTorch: what its wheel index calls it (``cpu``, ``cu130``, ...), or ``pypi`` for the one that the
package index has (CUDA on Linux). Without it: as in the last set-up here, else ``pypi``. `TORCH_INDEX` in the
environment names a mirror of PyTorch's wheel index. ORIGIN: see `main`.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
READY = VENV / ".ready"
"""Exists once everything is installed."""
CHOICE = VENV / ".setup"
"""What this environment is made of, written before anything is installed, so that the next call can go on."""
LOG = VENV / "setup.log"

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TORCH_INDEX = "https://download.pytorch.org/whl"
UNREACHABLE = re.compile(
    r"after connection broken by|Could not fetch URL|Max retries exceeded|timed out|TimeoutError|ConnectionError|"
    r"NewConnectionError|ConnectionReset|IncompleteRead|incomplete-download|ProxyError"
)
REASON = re.compile(
    r"Connection refused|Connection reset by peer|Name or service not known|nodename nor servname[^'\")\]]*|"
    r"Temporary failure in name resolution|No address associated with hostname|Network is unreachable|No route to host|"
    r"certificate verify failed|Tunnel connection failed: [^'\")]*|too many \d+ error responses|timed out"
)
NO_VERSION = re.compile(r"satisfies the requirement (\S+).*\(from versions: (.*)\)")
FULL = re.compile(r"No space left on device|Disk quota exceeded|Errno 28\b|Errno 122\b")
READ_ONLY = re.compile(r"Read-only file system|Permission denied|Errno 30\b|Errno 13\b")


class Failed(Exception):
    """What is told to the user."""


class Interrupted(Exception):
    """By Ctrl-C, or by SIGTERM."""


def torch_arguments(build: str, lock: str, index: str, system: str) -> list[str]:
    """Arguments by which pip installs a build of torch alone, from PyTorch's own index; none where PyPI's is the one.

    The build is part of the version (2.14.1+cpu), so that no other can take its place. The lock's torch==2.14.1 accepts
    it, and its metadata ask for no CUDA packages. On macOS there is one build, for CPUs, without that part.
    """
    if build == "pypi" or (build == "cpu" and system == "Darwin"):
        return []
    pins = dict(re.findall(r"^(torch|torchvision)==(\S+)", lock, re.MULTILINE))
    wanted = [f"torch=={pins['torch']}+{build}", f"torchvision=={pins['torchvision']}"]
    return ["--no-deps", "--index-url", f"{index.rstrip('/')}/{build}", *wanted]


def explain(output: str, code: int, build: str, mirror: str = "PIP_INDEX_URL") -> str:
    """The cause of a failure in one line.

    Args:
        output: what venv and pip wrote.
        code: exit status.
        build: of torch.
        mirror: the variable that names another index.
    """
    folders = [str(ROOT), tempfile.gettempdir()]
    free = {folder: shutil.disk_usage(folder).free for folder in folders}
    if FULL.search(output) or min(free.values()) < 20e6:
        room = ", ".join(f"{bytes_free / 1e9:.1f} GB free in {folder}" for folder, bytes_free in free.items())
        less = "" if build == "cpu" else "; less is needed with TORCH=cpu (no CUDA)"
        return f"the disk is full ({room}): make room, or name another temporary folder by TMPDIR{less}"
    if READ_ONLY.search(output) or not os.access(ROOT, os.W_OK):
        denied = re.search(r"(?:Errno 13|Errno 30)\D*?: '([^']+)'", output)
        return f"{denied[1] if denied else ROOT} cannot be written; set up in a folder of yours, on a disk to write on"
    looked = re.search(r"Looking in indexes: ([^\s,]+)", output)
    index = re.sub(r"//[^/@]*@", "//", looked[1]) if looked else "https://pypi.org/simple"  # no passwords
    if UNREACHABLE.search(output):
        reasons = REASON.findall(output)
        return (
            f"no network, or no package index at {index} ({reasons[-1] if reasons else 'no answer'}); call again when "
            f"there is: what is downloaded is kept. For a mirror or a proxy: {mirror}, HTTPS_PROXY"
        )
    if missing := NO_VERSION.search(output):
        here = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        if missing[2] != "none":
            return f"{index} has no {missing[1]} for {here}; it has {missing[2][-60:]}"
        return (
            f"no network or no index: pip finds no version of {missing[1]} for {here} at {index}, which cannot be "
            f"reached, is closed or switched off (PIP_NO_INDEX), or is no index; {mirror} names another"
        )
    if constraint := re.search(r"The user requested \(constraint\) (.*)", output):
        return f"pip's own settings (`pip config list`) ask for {constraint[1]}, against requirements.lock; change them"
    return f"could not set up .venv (exit status {code}); whole log: {LOG.relative_to(ROOT)}"


def run(command: list[str]) -> tuple[int, str]:
    """Exit status and output of a command that tells every 15 s how far it is; stopped when this process is."""
    lines: list[str] = []
    with LOG.open("ab", buffering=0) as log:
        # A group of its own: Ctrl-C reaches it once, by `stop`. It keeps the lock of `alone` if this is killed.
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, close_fds=False
        )

        def keep() -> None:
            for raw in process.stdout:
                lines.append(raw.decode(errors="replace"))
                with suppress(OSError):  # a full disk must not hide what pip says of it
                    log.write(raw)

        reader = Thread(target=keep, daemon=True)
        reader.start()
        start, told = time.monotonic(), 0
        try:
            while reader.is_alive():
                reader.join(1)
                seconds = int(time.monotonic() - start)
                if seconds >= told + 15:
                    told = seconds
                    steps = [line.strip() for line in lines if re.match("Collecting|Installing| *Downloading", line)]
                    print(f"  {seconds} s: {steps[-1][:70] if steps else '...'}", flush=True)
            return process.wait(), "".join(lines)
        except Interrupted:
            stop(process)
            raise


def stop(process: subprocess.Popen) -> None:
    """End a command: pip removes its temporary files then."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def do(command: list[str], build: str, mirror: str = "PIP_INDEX_URL") -> None:
    """Run a command; its failure is told."""
    code, output = run(command)
    if code:
        cause = explain(output, code, build, mirror)
        if LOG.name in cause:
            print("".join(output.splitlines(keepends=True)[-5:]), end="", file=sys.stderr)
        raise Failed(cause)


def install(python: str, build: str, lock: str) -> None:
    """Make .venv anew. Half an environment is not trusted: pip's cache has what was downloaded for it."""
    if VENV.is_symlink():
        VENV.unlink()  # what it leads to is another's to clear
    elif VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    CHOICE.write_text(json.dumps(choice(build, lock)) + "\n", encoding="utf-8")
    do([python, "-m", "venv", str(VENV)], build)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install"]
    pip += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    index = os.environ.get("TORCH_INDEX") or TORCH_INDEX
    if own := torch_arguments(build, lock, index, platform.system()):
        do([*pip, *own], build, "TORCH_INDEX")
    do([*pip, "-r", str(LOCK)], build)
    READY.touch()


def choice(build: str, lock: str) -> dict[str, str]:
    """What an environment is made of."""
    digest = hashlib.sha256(lock.encode()).hexdigest()
    return {"lock": digest, "torch": build, "python": "{}.{}".format(*sys.version_info)}


def before() -> dict[str, str]:
    """What the environment that stands here is made of."""
    try:
        return dict(json.loads(CHOICE.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def alone() -> None:
    """Hold this folder until this process and those that it starts end: no call clears what another installs."""
    folder = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another set-up is at work here; waiting for it", flush=True)
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks


def main(asked: str = "", origin: str = "default") -> None:
    """Make .venv if it is not what is wanted.

    Args:
        asked: build of torch, or nothing.
        origin: make's word for where PYTHON comes from; "command" and "environment": the user wants this version.
    """
    if asked and not re.fullmatch(r"pypi|cpu|xpu|cu\d+|rocm[\d.]+", asked):
        raise Failed(f"TORCH={asked} is no build of PyTorch: cpu, pypi (CUDA on Linux), or as cu130, rocm6.4, xpu")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = "python{}.{}-venv".format(*sys.version_info)
        found = f"Python {platform.python_version()} ({sys.executable})"
        raise Failed(f"{found} has no venv; on Debian or Ubuntu: apt install {package}") from None
    alone()
    lock = LOCK.read_text(encoding="utf-8")
    found = before()
    build = asked or found.get("torch", "pypi")
    wanted = choice(build, lock)
    if origin not in ("command", "environment"):
        wanted["python"] = found.get("python", "")
    if READY.exists() and (VENV / "bin" / "python").exists() and found == wanted:
        if READY.stat().st_mtime < LOCK.stat().st_mtime:
            READY.touch()
        return
    count = len(re.findall("^[^#\n]", lock, re.MULTILINE))
    print(f"Setting up .venv with Python {platform.python_version()}: {count} packages and what torch needs")
    print(f"This takes some minutes the first time (log: {LOG.relative_to(ROOT)})", flush=True)
    # Called from .venv itself, it would clear what it runs by.
    install(sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable), build, lock)


def interrupted(*_: object) -> None:
    raise Interrupted


if __name__ == "__main__":
    for number in SIGNALS:
        signal.signal(number, interrupted)
    try:
        main(*sys.argv[1:])
    except Failed as error:
        sys.exit(f"error: {error}")
    except Interrupted:
        print("error: set-up interrupted; the next call goes on: what pip has downloaded is kept", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"error: {explain(str(error), 1, 'pypi')}", file=sys.stderr)
        sys.exit(1)
