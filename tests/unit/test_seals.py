"""Seals. Oracle: sha256sum of coreutils."""

import shutil
import subprocess

import pytest

from dprobust.errors import UserError
from dprobust.seals import broken, check, seal, sealed


@pytest.fixture
def made(tmp_path):
    files = [tmp_path / "a b" / "fgsm.csv", tmp_path / "a b" / "fgsm.npz", tmp_path / "c" / "train.json"]
    for i, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(range(i, i + 100)))
    seal(files)
    return files


def test_what_is_whole_is_used(made):
    assert broken(made) == []
    check(made)
    assert set(sealed(made[0].parent)) == {"fgsm.csv", "fgsm.npz"} and set(sealed(made[2].parent)) == {"train.json"}


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum (coreutils)")
def test_sha256sum_reads_seals(made):
    folder = made[0].parent
    command = ["sha256sum", "--check", "--strict", ".fgsm.csv.sha256"]
    assert subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.count(b": OK") == 2
    made[1].write_bytes(b"")
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 1


@pytest.mark.parametrize("i", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 57, 99])
def test_a_flipped_bit_is_noticed_named_and_put_aside(made, i, place):
    damaged = bytearray(made[i].read_bytes())
    damaged[place] ^= 1
    made[i].write_bytes(damaged)
    assert broken(made) == [made[i]]
    with pytest.raises(UserError, match=f"{made[i].name}: damaged, not the bytes that were written here; put aside as"):
        check(made)
    assert not made[i].exists() and made[i].with_name(made[i].name + ".damaged").read_bytes() == damaged
    check(made)  # what is absent is for others to find


def test_all_that_is_damaged_is_named_at_once(made):
    for file in made[:2]:
        file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"fgsm.csv, .*fgsm.npz: damaged.*\*.damaged; run again, and they are"):
        check(made)


def test_what_has_no_seal_is_taken_as_it_is(made, tmp_path):
    own = made[0].parent / "own.npz"
    own.write_bytes(b"own")
    (made[0].parent / ".other.sha256").write_bytes(b"\xff\xfe no seal\n")
    assert broken([*made, own, tmp_path / "absent"]) == []


def test_made_anew_is_sealed_anew(made):
    made[0].write_bytes(b"new")
    seal(made[:2])
    check(made)
    assert len(list(made[0].parent.glob(".*"))) == 1
