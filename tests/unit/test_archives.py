"""Archives that are kept packed: which are accepted, and what hostile ones cannot do."""

import gzip
import hashlib
import io
import tarfile

import cifar_archives
import numpy as np
import pytest
from http_server import serving

from dprobust.errors import UserError
from dprobust.sources import archives, download
from dprobust.sources.archives import Archive, read_members
from dprobust.sources.download import DownloadError, fetch
from dprobust.sources.file import ChecksumError

RNG = np.random.default_rng(0)
MEMBERS = {f"batches/{name}": RNG.bytes(200_000) for name in ("one", "two")}
NAME = "batches.tar.gz"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "BACK_OFF", 0.01)
    monkeypatch.delenv("DPROBUST_MIRROR", raising=False)


@pytest.fixture
def mirror(tmp_path):
    return tmp_path / "mirror"


@pytest.fixture
def official(mirror):
    """The archive as it is known, a copy of which lies in the mirror."""
    cifar_archives.pack(mirror / NAME, MEMBERS)
    md5s = {name: hashlib.md5(content).hexdigest() for name, content in MEMBERS.items()}
    return Archive(NAME, hashlib.md5((mirror / NAME).read_bytes()).hexdigest(), members=md5s)


def contents(path):
    return {name: stream.read() for name, stream in read_members(path, MEMBERS)}


def test_the_official_archive_is_kept_packed(official, mirror, tmp_path):
    told = fetch([official], tmp_path / "data", [str(mirror)])
    packed = (mirror / NAME).read_bytes()
    assert (tmp_path / "data" / NAME).read_bytes() == packed
    digest = hashlib.sha256(packed).hexdigest()
    assert told[NAME] == {
        "origin": str(mirror),
        "verified": "official checksum",
        "md5": official.checksum,
        "sha256": digest,
    }
    assert contents(tmp_path / "data" / NAME) == MEMBERS
    again = fetch([official], tmp_path / "data", [])
    assert again[NAME] == told[NAME] | {"origin": "data folder"}


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_repacked_archive_is_known_by_its_members(official, mirror, tmp_path, by_hand):
    place = tmp_path / "data" if by_hand else mirror
    extra = {"batches/readme.html": b"more"}
    digest = cifar_archives.pack(place / NAME, {**dict(reversed(MEMBERS.items())), **extra}, level=1)
    told = fetch([official], tmp_path / "data", [str(mirror)])
    origin = "data folder" if by_hand else str(mirror)
    assert told[NAME] == {"origin": origin, "verified": "checksums of the members", "sha256": digest}
    assert contents(tmp_path / "data" / NAME) == MEMBERS


SWAPPED = {**MEMBERS, "batches/two": MEMBERS["batches/two"][:-1] + b"!"}


def test_any_other_is_refused(official, mirror, tmp_path):
    digest = cifar_archives.pack(mirror / NAME, SWAPPED)
    with pytest.raises(DownloadError) as error:
        fetch([official], tmp_path / "data", [str(mirror)])
    message, found = str(error.value), hashlib.md5(SWAPPED["batches/two"]).hexdigest()
    assert f"batches/two has md5 {found}, expected {official.members['batches/two']}" in message
    assert official.checksum in message and f"override the checksum with its sha256 {digest}" in message
    assert "\n" not in message
    assert not (tmp_path / "data" / NAME).exists()


def test_any_other_by_hand_is_named_and_kept(official, tmp_path):
    cifar_archives.pack(tmp_path / NAME, {"batches/one": MEMBERS["batches/one"], "elsewhere/two": b""})
    with pytest.raises(ChecksumError, match=r"\(no member batches/two\).*delete it to have it downloaded"):
        fetch([official], tmp_path, [])
    assert (tmp_path / NAME).exists()


def test_an_override_is_accepted_and_told(official, mirror, tmp_path):
    digest = cifar_archives.pack(mirror / NAME, SWAPPED)
    told = fetch([official.override(digest)], tmp_path / "data", [str(mirror)])
    assert told[NAME] == {"origin": str(mirror), "verified": "sha256 override", "sha256": digest}


def test_a_wrong_override_is_refused_even_for_official_members(official, mirror, tmp_path):
    digest = cifar_archives.pack(mirror / NAME, MEMBERS, level=1)
    with pytest.raises(DownloadError, match=rf"found sha256 {digest} .*expected {'0' * 64} \(the override\)"):
        fetch([official.override("0" * 64)], tmp_path / "data", [str(mirror)])


def test_a_truncated_archive_is_refused_and_the_next_mirror_asked(official, mirror, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / NAME).write_bytes((mirror / NAME).read_bytes()[:-30])
    with pytest.raises(DownloadError, match="Compressed file ended"):
        fetch([official], tmp_path / "data", [str(broken)])
    assert fetch([official], tmp_path / "data", [str(broken), str(mirror)])[NAME]["origin"] == str(mirror)


def test_a_half_downloaded_archive_goes_on(official, mirror, tmp_path):
    packed = (mirror / NAME).read_bytes()
    scratch = tmp_path / "data" / ".download"
    scratch.mkdir(parents=True)
    (scratch / f"{NAME}.part").write_bytes(packed[:200])
    with serving({NAME: packed}) as server:
        fetch([official], tmp_path / "data", [server.url])
        assert server.requests == [(NAME, "bytes=200-")]
    assert (tmp_path / "data" / NAME).read_bytes() == packed


def test_halves_of_two_packings_do_not_make_one(official, mirror, tmp_path):
    """The first mirror breaks off for good; the second has the same members in another packing."""
    cifar_archives.pack(tmp_path / NAME, MEMBERS, level=0)
    with (
        serving({NAME: (mirror / NAME).read_bytes()}) as first,
        serving({NAME: (tmp_path / NAME).read_bytes()}) as second,
    ):
        first.faults = ["truncate", 500, 500, 500]
        told = fetch([official], tmp_path / "data", [first.url, second.url])
        assert [span is None for _, span in second.requests] == [False, True]
    assert told[NAME]["origin"] == second.url and told[NAME]["verified"] == "checksums of the members"
    assert contents(tmp_path / "data" / NAME) == MEMBERS


def test_no_network_is_one_line_that_says_what_to_do(official, tmp_path):
    with serving({}) as gone:
        pass
    with pytest.raises(DownloadError, match="by hand or set a mirror") as error:
        fetch([official], tmp_path, [gone.url])
    assert NAME in str(error.value) and "cannot be reached" in str(error.value) and "\n" not in str(error.value)


HOSTILE = {
    "traversal": (cifar_archives.entry("../x"), "'../x' leads out"),
    "traversal inside": (cifar_archives.entry("batches/../../x"), "leads out"),
    "absolute": (cifar_archives.entry("/etc/x"), "'/etc/x' leads out"),
    "symlink": (cifar_archives.entry("batches/three", tarfile.SYMTYPE, "/etc/passwd"), "three' is not a regular file"),
    "hard link": (cifar_archives.entry("batches/three", tarfile.LNKTYPE, "batches/one"), "is not a regular file"),
    "device": (cifar_archives.entry("batches/three", tarfile.CHRTYPE), "is not a regular file"),
    "pipe": (cifar_archives.entry("batches/three", tarfile.FIFOTYPE), "is not a regular file"),
    "sparse": (cifar_archives.entry("batches/three", tarfile.GNUTYPE_SPARSE), "is not a regular file"),
    "duplicate": (cifar_archives.entry("batches/one"), "batches/one is there twice"),
}


@pytest.mark.parametrize(("extra", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_members_are_refused(official, mirror, tmp_path, extra, message):
    """Whether the archive is known by its members or by an override."""
    digest = cifar_archives.pack(mirror / NAME, MEMBERS, extra)
    with pytest.raises(DownloadError, match=message):
        fetch([official], tmp_path / "data", [str(mirror)])
    fetch([official.override(digest)], tmp_path / "data", [str(mirror)])
    with pytest.raises(UserError, match=message) as error:
        contents(tmp_path / "data" / NAME)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".lock", NAME]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_an_expected_name_must_be_a_file(tmp_path, kind):
    link = cifar_archives.entry("batches/two", kind, "batches/one")
    cifar_archives.pack(tmp_path / NAME, {"batches/one": b"1"}, link)
    with pytest.raises(UserError, match="batches/two' is not a regular file"):
        contents(tmp_path / NAME)


def test_size_is_checked_before_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LIMIT", 1 << 20)
    monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda *_: pytest.fail("read"))
    cifar_archives.pack(tmp_path / NAME, {"batches/one": bytes((1 << 20) + 1)})
    with pytest.raises(UserError, match=f"'batches/one' has {(1 << 20) + 1} bytes, more than {1 << 20}"):
        contents(tmp_path / NAME)


def tar(info, content=b""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def bomb(kind):
    """100 MB of zeros: as what one header says of itself, or after the end of the archive."""
    if kind == "after the end":
        return tar(cifar_archives.entry("batches/one")) + bytes(100_000_000)
    header = cifar_archives.entry("x", kind)
    header.size = 100_000_000
    return header.tobuf(tarfile.USTAR_FORMAT) + bytes(100_000_000)


@pytest.mark.parametrize("kind", ["after the end", tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "LIMIT", 10_000_000)
    (tmp_path / NAME).write_bytes(gzip.compress(bomb(kind), 1, mtime=0))
    with pytest.raises(UserError, match="more than 10000000 bytes when decompressed"):
        contents(tmp_path / NAME)


def forged_size(size):
    header = bytearray(cifar_archives.entry("batches/one").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    return bytes(header) + bytes(2048)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"not tar" * 1000, mtime=0),
        gzip.compress(forged_size(b"\xff" * 11 + b"\x00"), mtime=0),
        gzip.compress(forged_size(b"\x80" + b"\xff" * 11), mtime=0),
        gzip.compress(cifar_archives.entry("x", tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) * 5000, mtime=0),
        gzip.compress(tar(cifar_archives.entry("batches/one")), mtime=0)[:-4] + b"size",
        gzip.compress(tar(cifar_archives.entry("batches/one")), mtime=0) + b"rest",
    ],
)
def test_what_is_no_archive_is_one_line(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(UserError) as error:
        contents(tmp_path / NAME)
    assert str(error.value).startswith(f"{tmp_path / NAME}: ") and "\n" not in str(error.value)
