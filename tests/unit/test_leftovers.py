"""What a killed run leaves behind. Oracle: processes and files made here."""

import os
import subprocess
import sys
import time

from dprobust.leftovers import remove_halves, stop_jobs

SLEEP = "import time; time.sleep(60)"


def test_jobs_of_this_folder_are_stopped_and_no_others(tmp_path):
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    started = [
        subprocess.Popen([sys.executable, "-c", SLEEP, argument], cwd=folder)
        for folder, argument in ((here, ".jobs/1.py"), (here, "other"), (there, ".jobs/2.py"))
    ]
    try:
        told = []
        stop_jobs(here, ".jobs/", told.append)
        started[0].wait(timeout=10)
        assert [process.poll() for process in started[1:]] == [None, None]
        (line,) = told
        assert f"(processes {started[0].pid})" in line
        stop_jobs(here, ".jobs/", told.append)
        assert len(told) == 1
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_files_half_written_are_removed(tmp_path):
    results, data = tmp_path / "results", tmp_path / "data"
    paths = [results / "a" / ".m.csv.12.tmp", data / "b" / ".old.npz.3.tmp", data / "b" / ".new.npz.4.tmp"]
    others = [results / "a" / "m.csv", results / "a" / ".m.csv.sha256", data / "b" / "x.tmp"]
    for path in (*paths, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    now = time.time()
    os.utime(paths[1], (now - 4000, now - 4000))
    remove_halves(results, data, now)
    assert [path.exists() for path in paths] == [False, False, True]
    assert all(path.exists() for path in others)
    remove_halves(tmp_path / "absent", tmp_path / "nor this", now)
