import json
import math
import subprocess

import pandas as pd
import pytest

from dprobust import files, records, seeds
from dprobust.errors import UserError

ROWS = [
    {"run": "sgd", "eps": 0.1, "value": 1 / 3},
    {"run": "dpsgd_sigma=1.3_clip=1.0", "eps": 0.30000000000000004, "value": math.inf},
]


def test_numbers_come_back_exactly(tmp_path):
    records.write(tmp_path / "a.csv", ROWS)
    records.write(tmp_path / "b.csv", ROWS[:1])
    back = records.read([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert back.to_dict("records") == [*ROWS, ROWS[0]]


def test_provenance_is_complete_and_has_no_clock(tmp_path):
    (tmp_path / "in").write_bytes(b"abc")
    for name in ("a.json", "b.json"):
        records.write_provenance(tmp_path / name, {"eps": [0.1]}, [tmp_path / "in"], device="cpu")
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["inputs"] == {str(tmp_path / "in"): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert told["settings"] == {"eps": [0.1]} and told["device"] == "cpu"
    assert {"python", "torch", "numpy", "opacus"} <= set(told["versions"])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_commit_marks_edits(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    def commit():
        records.commit.cache_clear()
        return records.commit()

    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    try:
        assert commit() is None
        git("init", "-q")
        (tmp_path / "records.py").write_text("1")
        git("add", ".")
        git("commit", "-qm", "first")
        head = git("rev-parse", "HEAD").stdout.strip()
        assert commit() == head
        (tmp_path / "records.py").write_text("2")
        assert commit() == f"{head}+changes"
    finally:
        records.commit.cache_clear()


def test_replaced_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "deep" / "file"
    with files.replaced(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), files.replaced(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_table_is_written_without_index(tmp_path):
    records.write_table(tmp_path / "t.csv", pd.DataFrame({"a": [1]}, index=[7]))
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"


def test_seeds_are_named_streams():
    assert seeds.derive(0, "sgd", "init") == seeds.derive("0", "sgd", "init")
    streams = {seeds.derive(s, r, t) for s in range(5) for r in ("a", "b") for t in ("init", "noise")}
    assert len(streams) == 20 and all(0 <= s < 2**63 for s in streams)
    assert seeds.generator(1, "x").initial_seed() == seeds.derive(1, "x")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n3,4,5\n", b"\xff\xfe\x00", b'"unclosed'])
def test_a_damaged_record_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "fgsm.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        records.read([path])
    assert str(error.value).startswith(f"{path}: damaged (") and "\n" not in str(error.value)
    with pytest.raises(UserError, match="damaged"):
        records.read_json(path)
    path.write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(UserError, match="damaged"):
        dict(records.Arrays(path))
