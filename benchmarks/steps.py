"""One step of DP-SGD: ours, its peers, and plain SGD, on one CPU thread unless a table is about cores."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.contestants import (
    BFLOAT16,
    CLIP,
    FAST_SGD,
    FUSED,
    GHOST,
    HOOKS,
    SGD,
    SGD_BFLOAT16,
    UNCLIPPED,
    Contestant,
    batch,
    bfloat16,
    functions,
    fused,
    jax_vmap,
    lenet,
    mlp,
    opacus,
    sgd,
    vmap,
)
from benchmarks.harness import Row, Spread, Table, Target, check, distance, interleave, ratio, rows, timed
from dprobust.allocator import SETTINGS, keep_memory
from dprobust.engines import ENGINES

ROOT = Path(__file__).parents[1]


def tables(quick: bool) -> Iterator[Table]:
    torch.set_num_threads(1)
    keep_memory()  # as every job of the workflow does
    yield lenet_steps(256, 2 if quick else 21)
    yield head_steps(200, 3 if quick else 101)
    yield kept(256, 3 if quick else 20, 1 if quick else 7)
    yield poisson(256, 8, 2 if quick else 21)
    yield memory(256, 1 if quick else 3)
    yield from growth([32, 256] if quick else [32, 64, 128, 256, 512, 1024, 2048], 2 if quick else 9)
    yield cores(5 if quick else 40, 1 if quick else 5)
    yield profile(256, 2 if quick else 20)


def verified(contestants: dict[str, Contestant], model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Contestant]:
    """The contestants, each found to give the sums of torch.func per-example gradients of `model`."""
    engine = ENGINES["functional"](model)
    parts = list(zip(x.split(32), y.split(32), strict=True))[:5]
    expected = {
        private: [engine(*part, CLIP if private else UNCLIPPED)[0] for part in parts] for private in (True, False)
    }
    for name, c in contestants.items():
        errors = [distance(c.sums(*part), sums) for part, sums in zip(parts, expected[c.private], strict=True)]
        check(name, errors, c.tolerance)
    return contestants


def _steps(contestants: Mapping[str, Contestant], x: Tensor, y: Tensor, rounds: int) -> dict[str, list[float]]:
    return interleave({name: timed(lambda c=c: c.step(x, y)) for name, c in contestants.items()}, rounds, warm_up=2)


def lenet_steps(n: int, rounds: int) -> Table:
    x, y = batch(n)
    contestants = {
        SGD: sgd(lenet()),
        FAST_SGD: sgd(lenet(), torch.channels_last),
        FUSED: fused(lenet()),
        "ours, fused, written with functions": fused(functions()),
        "ours, fused, without noise": fused(lenet(), noise=0),
        SGD_BFLOAT16: sgd(lenet(), torch.channels_last, torch.bfloat16),
        BFLOAT16: bfloat16(lenet()),
        "ours, bfloat16, without noise": bfloat16(lenet(), noise=0),
        GHOST: opacus(lenet(), "ghost"),
        HOOKS: opacus(lenet(), "hooks"),
        "Opacus functorch": opacus(lenet(), "functorch"),
        "torch.func vmap": vmap(lenet()),
    }
    notes = ["A step of DP-SGD holds clipping, noise and update; one of SGD the update."]
    if find_spec("jax"):
        contestants["JAX jit(vmap)"] = jax_vmap(lenet())
    else:
        notes.append("JAX is not installed: no row.")
    samples = _steps(verified(contestants, lenet(), x, y), x, y, rounds)
    return Table(
        f"A step on LeNet 800-500-500-10, batch {n}",
        "ms",
        rows(samples, 1e3, FAST_SGD),
        FAST_SGD,
        [
            Target("fused step / fastest SGD step", ratio(samples, FUSED, FAST_SGD), 1.6),
            *_aims("LeNet", samples, FAST_SGD),
            Target("Opacus hooks / fused", ratio(samples, HOOKS, FUSED), 9, at_most=False),
            Target("Opacus ghost / fused", ratio(samples, GHOST, FUSED), 1.7, at_most=False),
        ],
        notes,
    )


def _aims(what: str, samples: Mapping[str, list[float]], reference: str) -> list[Target]:
    """Of a private step against SGD in the same precision, and in bfloat16 against the fastest in float32 too."""
    return [
        Target(f"{what}, fused step / fastest SGD step, the aim", ratio(samples, FUSED, reference), 1.2),
        Target(f"{what}, bfloat16 step / fastest float32 SGD step", ratio(samples, BFLOAT16, reference), 0.85),
        Target(f"{what}, bfloat16 step / bfloat16 SGD step", ratio(samples, BFLOAT16, SGD_BFLOAT16), 1.2),
    ]


def head_steps(n: int, rounds: int) -> Table:
    x, y = batch(n, 1600)
    contestants = {SGD: sgd(mlp()), FUSED: fused(mlp()), "ours, fused, without noise": fused(mlp(), noise=0)}
    contestants |= {SGD_BFLOAT16: sgd(mlp(), computed_in=torch.bfloat16), BFLOAT16: bfloat16(mlp())}
    contestants |= {"ours, bfloat16, without noise": bfloat16(mlp(), noise=0)}
    contestants |= {GHOST: opacus(mlp(), "ghost"), HOOKS: opacus(mlp(), "hooks")}
    samples = _steps(verified(contestants, mlp(), x, y), x, y, rounds)
    targets = [
        Target("CIFAR head, fused step / SGD step", ratio(samples, FUSED, SGD), 1.5),
        *_aims("CIFAR head", samples, SGD),
    ]
    return Table(f"A step on the CIFAR head 1600-500-500-10, batch {n}", "ms", rows(samples, 1e3, SGD), SGD, targets)


KEPT = {
    FAST_SGD: lambda: sgd(lenet(), torch.channels_last),
    FUSED: lambda: fused(lenet()),
    BFLOAT16: lambda: bfloat16(lenet()),
}


def kept(n: int, steps: int, rounds: int) -> Table:
    """Steps with malloc as jobs have it (`dprobust.allocator`), and as it comes."""
    title = f"A step on LeNet, batch {n}, by what malloc does with freed memory, a fresh process of {steps} steps each"
    names = {(name, keeps): f"{name}, {'kept' if keeps else 'given back'}" for name in KEPT for keeps in (True, False)}
    samples = interleave(
        {
            text: lambda name=name, keeps=keeps: float(_python(f"steps.seconds({name!r}, {n}, {steps}, {keeps})"))
            for (name, keeps), text in names.items()
        },
        rounds,
        warm_up=0,
    )
    return Table(title, "ms", rows(samples, 1e3, names[FAST_SGD, True]), names[FAST_SGD, True])


def seconds(name: str, n: int, steps: int, keeps: bool) -> None:
    """Print the seconds a step takes."""
    torch.set_num_threads(1)
    if keeps:
        keep_memory()
    contestant, (x, y) = KEPT[name](), batch(n)
    for _ in range(3):
        contestant.step(x, y)
    print(timed(lambda: [contestant.step(x, y) for _ in range(steps)])() / steps)


def poisson(n: int, steps: int, rounds: int) -> Table:
    """Batches whose size differs from step to step, as Poisson sampling draws them, against fixed ones."""
    model = lenet()
    contestant, random = fused(model), torch.Generator().manual_seed(0)
    drawn = torch.binomial(torch.full((rounds + 1, steps), 60_000.0), torch.tensor(n / 60_000), generator=random)
    sizes = iter(drawn.int().tolist())

    def per_example(sizes: list[int]) -> float:
        batches = [batch(size) for size in sizes]
        seconds = timed(lambda: [contestant.step(x, y) for x, y in batches])()
        return seconds / sum(sizes)

    fixed, variable = "fixed batches", "Poisson batches"
    samples = interleave(
        {fixed: lambda: per_example([n] * steps), variable: lambda: per_example(next(sizes))}, rounds, warm_up=1
    )
    return Table(
        f"Cost of an example in Poisson batches of {n} expected, fused engine, {steps} steps a round",
        "µs an example",
        rows(samples, 1e6, fixed),
        fixed,
        [Target("Poisson / fixed batches", ratio(samples, variable, fixed), 1.05)],
    )


MEMORY = {
    FAST_SGD: lambda: sgd(lenet(), torch.channels_last),
    SGD: lambda: sgd(lenet()),
    FUSED: lambda: fused(lenet()),
    GHOST: lambda: opacus(lenet(), "ghost"),
    HOOKS: lambda: opacus(lenet(), "hooks"),
}


def memory(n: int, rounds: int) -> Table:
    title = f"Growth of the resident memory at its peak over five steps, LeNet, batch {n}, a fresh process each"
    if not Path("/proc/self/clear_refs").exists():
        return Table(title, "MiB", [], notes=["Measured on Linux only."])
    samples = interleave(
        {name: lambda name=name: float(_python(f"steps.peak({name!r}, {n})")) for name in MEMORY}, rounds, warm_up=0
    )
    target = Target("peak memory, fused / SGD", ratio(samples, FUSED, FAST_SGD), 1.5)
    return Table(title, "MiB", rows(samples, 2**-20, FAST_SGD), FAST_SGD, [target])


def peak(name: str, n: int) -> None:
    """Print by how many bytes the memory of this process grows in some steps."""
    torch.set_num_threads(1)
    contestant, (x, y) = MEMORY[name](), batch(n)
    contestant.step(x[:2], y[:2])  # loads what is loaded once
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = _status("VmRSS")
    for _ in range(5):
        contestant.step(x, y)
    print(_status("VmHWM") - before)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


def growth(sizes: list[int], rounds: int) -> Iterator[Table]:
    """Cost of a step in the size of the batch, of the layers, and of the convolutions."""
    for n in sizes:
        yield _growth(f"batch {n}", lenet, n, rounds)
    for width in (125, 500, 1000, 2000):
        yield _growth(f"batch 256, {width} hidden units", lambda w=width: lenet(hidden=(w, w)), 256, rounds)
    for channels in ((10, 25), (40, 100)):
        title = f"batch 256, {channels[0]} and {channels[1]} channels"
        yield _growth(title, lambda c=channels: lenet(channels=c), 256, rounds)


def _growth(title: str, build: Callable[[], nn.Module], n: int, rounds: int) -> Table:
    x, y = batch(n)
    contestants = {FAST_SGD: sgd(build(), torch.channels_last), FUSED: fused(build())}
    samples = _steps(verified(contestants, build(), x, y), x, y, rounds)
    return Table(f"Growth: {title}", "ms", rows(samples, 1e3, FAST_SGD), FAST_SGD)


def cores(steps: int, rounds: int) -> Table:
    """Jobs side by side, each of so many threads: seconds of the machine that a step of one job costs."""
    layouts = [(1, 1), (2, 1), (1, 2)] if (os.cpu_count() or 1) > 1 else [(1, 1)]
    names = {
        layout: f"{layout[0]} job{'s'[: layout[0] - 1]} of {layout[1]} thread{'s'[: layout[1] - 1]}"
        for layout in layouts
    }
    contestants = {names[layout]: lambda layout=layout: _side_by_side(*layout, steps) for layout in layouts}
    reference = names[1, 1]
    title = "Fused steps on LeNet, batch 256, on the cores of the machine"
    samples = interleave(contestants, rounds, warm_up=0)
    return Table(title, "ms a step of one job", rows(samples, 1e3, reference), reference)


def _side_by_side(jobs: int, threads: int, steps: int) -> float:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", f"from benchmarks import steps; steps.worker({threads}, {steps})"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        for _ in range(jobs)
    ]
    try:
        for worker in workers:
            worker.stdout.readline()
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return max(float(worker.stdout.readline()) for worker in workers) / (jobs * steps)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def worker(threads: int, steps: int) -> None:
    """Wait for a line, take the steps, print the seconds."""
    torch.set_num_threads(threads)
    keep_memory()
    contestant, (x, y) = fused(lenet()), batch(256)
    for _ in range(3):
        contestant.step(x, y)
    print("ready", flush=True)
    sys.stdin.readline()
    print(timed(lambda: [contestant.step(x, y) for _ in range(steps)])(), flush=True)


OPERATIONS = {
    "convolution, forward": ("aten::mkldnn_convolution",),
    "convolution, backward to the input": ("aten::convolution_backward",),
    "convolution, per-example gradients (matrix products)": ("aten::bmm",),
    "convolution, clipped sum": ("aten::addmv_", "aten::addmv"),
    "linear layers, forward, backward and clipped sum": ("aten::addmm", "aten::mm"),
    "max-pooling": ("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward"),
    "ReLU": ("aten::clamp_min", "aten::threshold_backward"),
    "copies (unfolding, memory formats)": ("aten::copy_", "aten::clone"),
}


def profile(n: int, steps: int) -> Table:
    """Where the time of a fused step goes."""
    contestant, (x, y) = fused(lenet()), batch(n)
    contestant.step(x, y)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        for _ in range(steps):
            contestant.step(x, y)
    spent: Counter[str] = Counter()
    groups = {operation: group for group, operations in OPERATIONS.items() for operation in operations}
    for event in recorded.key_averages():
        spent[groups.get(event.key, "all else")] += event.self_cpu_time_total
    shares = [(name, 100 * time / spent.total()) for name, time in spent.most_common()]
    return Table(
        f"Where the time of a fused step on LeNet goes, batch {n}",
        "%",
        [Row(name, Spread(share, share, share), steps) for name, share in shares],
        counted="steps",
    )


def _python(call: str) -> str:
    command = [sys.executable, "-c", f"from benchmarks import steps; {call}"]
    # malloc as it comes: what is measured sets it itself.
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=clean).stdout
