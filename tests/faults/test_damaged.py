"""Files that are not what was written: noticed, named, made again with the same bytes, and never used."""

import os

import pytest
from clones import RECORDS, RESULTS, SGD, errors, kill, wait_until

DATA = "data/digits-6f5b9816"


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def edited(path):
    """One digit is another, as by hand in an editor."""
    text = path.read_text(encoding="utf-8")
    place = max(i for i, character in enumerate(text) if character.isdigit())
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :], encoding="utf-8")


def damage(path, how):
    """As a bad disk does it: the file's time stays."""
    times = path.stat()
    how(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


TUNED = RESULTS / "models/tuned/dpsgd_sigma=1.0_clip=1.0/seed=0"
USED = {
    # What is damaged, and what is then made from it: its files are removed, so that it must be read. None of them needs
    # another of them.
    SGD / "model.safetensors": (flipped, [RECORDS / "lifted.csv"]),
    RECORDS / "cross_sections.csv": (emptied, [RESULTS / "figures/plane.png"]),
    RESULTS / "records/digits/dpsgd_sigma=1.0_clip=1.0/privacy.csv": (edited, [RESULTS / "figures/curves.csv"]),
    SGD / "train.json": (edited, [RESULTS / "records/digits/sgd/privacy.csv"]),
    RESULTS / "features/tuned/images/train.npz": (flipped, [TUNED / "model.safetensors", TUNED / "train.json"]),
}
"""Damaged file -> how, and what is made from it."""


@pytest.mark.parametrize("method", [flipped, cut, emptied, edited], ids=lambda method: method.__name__)
def test_the_methods_change_a_file(tmp_path, method):
    (path := tmp_path / "a.csv").write_text("a,b\n1,2\n")
    method(path)
    assert path.read_text() != "a,b\n1,2\n"


def test_what_is_damaged_is_not_used(done, whole):
    for path, (how, made_from_it) in USED.items():
        damage(done.path(path), how)
        for file in made_from_it:
            done.path(file).unlink()
    targets = [file for _, made_from_it in USED.values() for file in made_from_it]
    run = done.run("--keep-going", *targets, check=False)
    assert run.returncode != 0 and "Traceback" not in run.output
    for path, (_, made_from_it) in USED.items():
        (line,) = {line for line in errors(run.output) if f"{path}:" in line}
        assert f"damaged, not the bytes that were written here; put aside as {path}.damaged" in line
        assert not done.path(path).exists() and done.path(f"{path}.damaged").exists()
        assert not any(done.path(file).exists() for file in made_from_it)
    done.run()
    assert done.contents() == whole.made


def test_what_nothing_reads_is_found_by_a_check(done, whole):
    """One of each kind of file, and some that are lost or have no seal."""
    assert done.status("check").stdout.splitlines()[-3:] == [
        "0 missing",
        "0 unsealed",
        f"{count(whole)} whole, 0 damaged",
    ]
    broken = {
        f"{DATA}/train.npz": flipped,
        "data/brightness/even.npz": cut,
        f"{RESULTS}/pretrained/tuned/features.safetensors": cut,
        f"{RESULTS}/features/tuned/images/test.npz": emptied,
        f"{TUNED}/train.json": edited,
        f"{RECORDS}/lifted.json": edited,
        f"{RECORDS}/clean.npz": cut,
        f"{RESULTS}/figures/curves.png": flipped,
        f"{RESULTS}/figures/plane.pdf": flipped,
        f"{RESULTS}/tables/lifted.tex": edited,
        f"{RESULTS}/pages/fragile.html": emptied,
        f"{RESULTS}/report.html": edited,
    }
    for path, how in broken.items():
        damage(done.path(path), how)
    lost = f"{RECORDS}/fgsm.npz"
    done.path(lost).unlink()
    done.path(RESULTS / "figures/.fine.pdf.sha256").unlink()
    found = done.status("check")
    assert found.returncode == 1
    (line,) = errors(found.stderr)
    for path in broken:
        assert f"{path}," in line or f"{path}: damaged" in line
        assert done.path(f"{path}.damaged").exists()
    assert "run again, and they are made anew" in line
    told = found.stdout.splitlines()
    assert f"missing: {lost}" in told and sum(line.startswith("missing: ") for line in told) == 1
    assert {f"unsealed: {RESULTS}/figures/fine.{suffix}" for suffix in ("pdf", "png", "csv")} <= set(told)
    again = done.status("check")
    missing = [line for line in again.stdout.splitlines() if line.startswith("missing: ")]
    assert again.returncode == 0 and len(missing) == len(broken) + 1

    output = done.run().output
    assert output.count("Lost since they were made, and made again first") == 5
    # Of trainings only the one whose record was damaged, of records only those that were, and nobody's privacy.
    (training,) = [line for line in output.splitlines() if ": Training " in line]
    assert "on tuned" in training and output.count(": Measuring ") <= 2 + 2 and "Privacy of sgd" not in output
    made = done.contents()
    assert {name: made.get(name) for name in whole.made if ".fine.pdf" not in name} == {
        name: digest for name, digest in whole.made.items() if ".fine.pdf" not in name
    }


def count(clone):
    """Files of the study that have seals."""
    lines = [line for seal in clone.folder.glob("*/**/.*.sha256") for line in seal.read_text().splitlines()]
    return sum(not line.endswith(("source.json", "even.json")) for line in lines)


def test_a_damaged_checkpoint_is_not_gone_on_from(done, whole):
    for path in done.path(SGD).glob("[!.]*"):
        path.unlink()
    long = done.overlay(datasets={"digits": {"training": {"sgd": {"epochs": 100}}}})
    checkpoint = done.path(SGD, "checkpoint.safetensors")
    process = done.start(SGD / "model.safetensors", config=[long])
    assert wait_until(checkpoint.exists, process)
    kill(process)
    flipped(checkpoint)
    done.run(SGD / "model.safetensors", config=[long])
    log = done.lines("train/digits/sgd/seed=0.log")
    assert any("is damaged" in line and "starting over" in line for line in log)
    assert not any("going on after" in line for line in log)
    done.run()
    assert done.contents() == whole.made
