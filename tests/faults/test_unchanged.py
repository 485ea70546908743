"""Nothing is run again that need not be, whatever the times of files say and wherever the clone lies."""

import os
import shutil
import subprocess
import time

from clones import GIT, SGD, Clone


def nothing_to_do(clone):
    output = clone.run("--dry-run").output
    return "Nothing to be done" in output or output


def test_times_and_places(done, tmp_path):
    """The clock is set back: files are of the future. Code is touched, or checked out again. The clone is moved."""
    ahead = time.time() + 10 * 86_400
    for top in ("results", "data"):
        for path in done.path(top).rglob("*"):
            os.utime(path, (ahead, ahead))
    assert nothing_to_do(done) is True
    for top in ("workflow", "dprobust", "tests"):
        for path in done.path(top).rglob("*"):
            os.utime(path, (ahead + 1, ahead + 1))
    assert nothing_to_do(done) is True
    shutil.rmtree(done.path("workflow"))
    shutil.rmtree(done.path("dprobust"))
    subprocess.run([*GIT, "checkout", "--quiet", "."], cwd=done.folder, check=True)
    assert nothing_to_do(done) is True
    moved = Clone(tmp_path / "moved elsewhere" / "clone")
    moved.folder.parent.mkdir()
    done.folder.rename(moved.folder)
    assert nothing_to_do(moved) is True
    assert "Nothing to be done" in moved.run().output


def test_data_got_again(done, whole):
    """Data and a model are lost, and made again with the same bytes: nothing else is made again."""
    for path in [*done.path("data/digits-6f5b9816").glob("*.npz"), done.path(SGD, "model.safetensors")]:
        path.unlink()
    output = done.run().output
    jobs = [line for line in output.splitlines() if line.startswith("Job ") and ": " in line]
    assert [job.partition(": ")[2].split()[0] for job in jobs] == ["Getting", "Training"]
    assert "Nothing to be done" in output
    assert done.contents() == whole.made


def test_data_that_nothing_needs_are_not_got(done):
    for path in done.path("data").rglob("*.npz"):
        path.unlink()
    assert "Nothing to be done" in done.run().output and not list(done.path("data").rglob("*.npz"))


def test_edited_and_put_back(done):
    """An edit of code that counts is seen; taken back, nothing is to be done."""
    path = done.path("dprobust/metrics/fgsm/measure.py")
    text = path.read_text()
    path.write_text(text + "\n\nassert True\n")
    assert nothing_to_do(done) is not True
    path.write_text(text)
    assert nothing_to_do(done) is True
