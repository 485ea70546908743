"""What jobs have cost, from benchmark files made by hand."""

import pytest

from dprobust.hours import hours, jobs, markdown


def test_cost_by_stage(tmp_path):
    assert hours(jobs(tmp_path)).empty
    for path, seconds, processor, memory in (
        ("train/mnist/sgd/seed=0", 3600, 1800, "700"),
        ("train/mnist/sgd/seed=1", 1800, 1800, "650"),
        ("fgsm/mnist/sgd/seed=0", 360, 180, "-"),  # over before its memory was read
    ):
        (file := tmp_path / "benchmarks" / f"{path}.tsv").parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t{memory}\t{processor}\n")
    table = hours(jobs(tmp_path)).set_index("stage")
    assert list(table.index) == ["fgsm", "train", "total"]
    assert table.loc["train"].tolist() == [2, 1.5, 1.0, 1.0, 700]
    assert table.loc["total", ["jobs", "core_hours", "memory"]].tolist() == [3, pytest.approx(1.05), 700]


def test_jobs_and_the_share_of_their_start(tmp_path):
    for name, seconds in (("seed=0", 30), ("seed=1", 10)):
        (file := tmp_path / "benchmarks" / "train" / "mnist" / f"{name}.tsv").parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\tmax_rss\tcpu_time\n{seconds}\t500\t{seconds}\n")
    each = jobs(tmp_path)
    assert each[["stage", "job", "seconds"]].values.tolist() == [
        ["train", "mnist/seed=0", 30],
        ["train", "mnist/seed=1", 10],
    ]
    table = hours(each, startup=2.0)
    assert table["startup_share"].tolist() == pytest.approx([0.1, 0.1])
    head, _, train, total = markdown(table).splitlines()
    assert head.endswith("| start-up share |") and train == "| train | 2 | 0.01 | 0.01 | 0.5 | 500 | 10.0 % |"
    assert total.startswith("| total | 2 |")
