"""The 31 corruptions of MNIST-C over all test images, on one CPU thread."""

from collections.abc import Iterator

import numpy as np

from benchmarks.data import file
from benchmarks.harness import Row, Spread, Table, Target, interleave, rows, timed
from dprobust.arrays import load, read_npz
from dprobust.corruptions import NAMES, NEEDS, corrupt, load_frost_textures
from dprobust.materials.mnist_c.make import FROST
from dprobust.sources.download import fetch
from dprobust.sources.mnist_c import FROST_MIRRORS


def tables(quick: bool) -> Iterator[Table]:
    path = file("mnist_c/pessimal.npz")
    fetch(FROST, path.parent / "frost", FROST_MIRRORS)
    needed = {"pattern": read_npz(path)["pattern"], "textures": load_frost_textures(path.parent / "frost")}
    images = load(file("mnist/test.npz")).images[: 500 if quick else None, 0]
    yield sets(images, needed, rounds=1 if quick else 3)


def sets(images: np.ndarray, needed: dict[str, object], rounds: int) -> Table:
    def make(name: str) -> None:
        corrupt(images, name, 0, **({NEEDS[name]: needed[NEEDS[name]]} if name in NEEDS else {}))

    samples = interleave({name: timed(lambda name=name: make(name)) for name in NAMES}, rounds, warm_up=0)
    total = Spread.of([sum(values) for values in zip(*samples.values(), strict=True)])
    slowest_first = sorted(rows(samples), key=lambda row: -row.value.median)
    what = f"all {len(NAMES)} corruptions of {len(images):,} images"
    return Table(
        f"Corruptions of {len(images):,} images",
        "s",
        [Row("all", total, rounds), *slowest_first],
        targets=[Target(what, total, 60, unit="s"), Target(f"{what}, the aim", total, 40, unit="s")],
    )
