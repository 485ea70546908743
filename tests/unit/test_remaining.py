"""The time that is left of a run, against numbers made by hand."""

import pytest

from dprobust.remaining import Remaining, told


def write(folder, **seconds):
    for name, value in seconds.items():
        (file := folder / f"{name.replace('__', '/')}.tsv").parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\tcpu_time\n{value}\t1\n")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "mine" / "benchmarks"


def test_the_nearest_time_that_is_known(folder):
    write(folder, train__mnist__sgd__0=100, train__mnist__sgd__1=120, train__mnist__dp__0=300, fgsm__mnist__sgd__0=7)
    remaining = Remaining({0: folder / "train/mnist/sgd/0.tsv"}, 1)
    guess = lambda path: remaining.guess(folder / path)  # noqa: E731
    assert guess("train/mnist/sgd/0.tsv") == 100  # the job itself
    assert guess("train/mnist/sgd/7.tsv") == 110  # the run's other seeds
    assert guess("train/mnist/other/0.tsv") == 120  # the dataset's other runs: the median of three
    assert guess("train/cifar10/sgd/0.tsv") == 120  # the stage
    assert guess("pgd/mnist/sgd/0.tsv") is None


def test_jobs_side_by_side_and_what_runs(folder):
    write(folder, train__mnist__sgd__0=100)
    jobs = {seed: folder / f"train/mnist/sgd/{seed}.tsv" for seed in range(5)} | {"page": None}
    remaining = Remaining(jobs, 2)
    assert remaining.left({}) == (250, True)
    assert remaining.left({0: 40.0, 1: 130.0}) == ((60 + 0 + 300) / 2, True)  # longer than thought: nothing is left
    assert remaining.left({0: 40.0}, {0: 900.0}) == (900, True)  # no shorter than the longest
    for seed in range(4):
        remaining.finished(seed, 50.0)
    assert remaining.left({}) == (50, True)  # what this run took counts, 50 four times and 100
    remaining.finished(4, 50.0)
    remaining.finished("page", 2.0)
    assert remaining.left({}) == (0, True)


def test_what_is_not_known_is_said(folder):
    remaining = Remaining(
        {0: folder / "train/a/b/0.tsv", 1: folder / "train/a/b/1.tsv", 2: folder / "pgd/a/b/0.tsv"}, 1
    )
    assert remaining.left({}) == (0, False)
    assert remaining.left({0: 10.0}, {0: 90.0}) == (
        90 + 100,
        False,
    )  # a training that tells of its end tells of another
    remaining.finished(0, 60.0)
    assert remaining.left({}) == (60, False)
    remaining.finished(2, 5.0)
    assert remaining.left({}) == (60, True)


@pytest.mark.parametrize("text", ["", "s\n", "s\tx\n-\t1\n", "s\n-1\n", "nothing\n1\n"])
def test_damaged_files_tell_nothing(folder, text):
    write(folder, train__a__b__0=1)
    (folder / "train/a/b/1.tsv").write_text(text)
    assert Remaining({0: folder / "train/a/b/1.tsv"}, 1).left({}) == (1, True)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (42, "42 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (7_000, "117 min"),
        (7_200, "2 h 0 min"),
        (3 * 3600 + 5 * 60, "3 h 5 min"),
        (52 * 3600, "2 d 4 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert told(seconds) == words
