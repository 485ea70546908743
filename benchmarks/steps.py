"""One step of DP-SGD: ours, its peers, and plain SGD, on one CPU thread unless a table is about cores."""

import itertools
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Row, Spread, Table, Target, check, distance, interleave, ratio, rows, timed
from dprobust.engines import ENGINES
from dprobust.models import networks as models
from dprobust.noise import Noise

ROOT = Path(__file__).parents[1]
CLIP, NOISE, LR = 1.0, 1.3, 0.05
UNCLIPPED = 1e9
TOLERANCE = 1e-5
SGD, FAST_SGD, FUSED, HOOKS, GHOST = "SGD", "SGD, channels_last", "ours, fused", "Opacus hooks", "Opacus ghost"

Gradients = dict[str, Tensor]


class Contestant(NamedTuple):
    """A training step, and the (clipped) gradient sum that it moves the parameters by, noise aside."""

    step: Callable[[Tensor, Tensor], object]
    sums: Callable[[Tensor, Tensor], Gradients]
    private: bool = True


class Functions(nn.Module):
    """The LeNet written with functions: there is no Sequential to reorder."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2, self.logits = nn.Linear(800, 500), nn.Linear(500, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.logits(F.relu(self.fc2(F.relu(self.fc1(x)))))


def lenet(channels: tuple[int, int] = (20, 50), hidden: tuple[int, ...] = (500, 500)) -> nn.Module:
    settings = {"name": "lenet", "channels": list(channels), "hidden": list(hidden)}
    return models.build(settings, (1, 28, 28), 10)


def functions() -> nn.Module:
    model = Functions()
    model.load_state_dict(lenet().state_dict())
    return model


def mlp() -> nn.Module:
    """The head that is trained on the CIFAR network's features."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1600, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 10))


def batch(n: int, *shape: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(n)
    return torch.rand(n, *(shape or (1, 28, 28)), generator=random), torch.randint(10, (n,), generator=random)


# The contestants.


def _moving(model: nn.Module, sums: Callable[[Tensor, Tensor], Gradients], noise: float) -> Contestant:
    parameters, steps = dict(model.named_parameters()), itertools.count()
    drawn = Noise(noise, ("benchmark",), secret=False, device="cpu") if noise else None

    def step(x: Tensor, y: Tensor) -> None:
        gradients = sums(x, y)
        with torch.no_grad():
            noisy = drawn.add(next(steps), gradients) if drawn else gradients
            for name, parameter in parameters.items():
                parameter.add_(noisy[name], alpha=-LR / max(1, len(x)))

    return Contestant(step, sums)


def sgd(model: nn.Module, memory_format: torch.memory_format = torch.contiguous_format) -> Contestant:
    model = model.to(memory_format=memory_format)
    parameters = dict(model.named_parameters())

    def sums(x: Tensor, y: Tensor) -> Gradients:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    return _moving(model, sums, 0)._replace(private=False)


def fused(model: nn.Module, noise: float = NOISE) -> Contestant:
    engine = ENGINES["fused"](model)
    return _moving(model, lambda x, y: engine(x, y, CLIP)[0], noise)


def vmap(model: nn.Module) -> Contestant:
    def loss(values: Gradients, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, values, (x[None],)), y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def sums(x: Tensor, y: Tensor) -> Gradients:
        each = gradients(values, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in each.values()]).norm(dim=0)
        weights = (CLIP / norms).clamp(max=1)
        return {name: torch.tensordot(weights, g, 1) for name, g in each.items()}

    return _moving(model, sums, NOISE)


def opacus(model: nn.Module, mode: str) -> Contestant:
    """Opacus as `PrivacyEngine.make_private` puts it together."""
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    warnings.filterwarnings("ignore", "Full backward hook is firing")
    plain, settings = torch.optim.SGD(model.parameters(), LR), {"noise_multiplier": NOISE, "max_grad_norm": CLIP}
    if mode == "ghost":
        wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=CLIP, use_ghost_clipping=True)
        optimizer = DPOptimizerFastGradientClipping(plain, **settings, expected_batch_size=256)
        criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss())
        gather = optimizer.accumulate
    else:
        wrapped = GradSampleModule(model, force_functorch=mode == "functorch")
        optimizer = DPOptimizer(plain, **settings, expected_batch_size=256)
        criterion, gather = nn.CrossEntropyLoss(), optimizer.clip_and_accumulate

    def backward(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        criterion(wrapped(x), y).backward()

    def step(x: Tensor, y: Tensor) -> None:
        backward(x, y)
        optimizer.step()

    def sums(x: Tensor, y: Tensor) -> Gradients:
        backward(x, y)
        gather()
        found = {name: parameter.summed_grad for name, parameter in model.named_parameters()}
        optimizer.zero_grad()
        return found

    return Contestant(step, sums)


def jax_vmap(model: nn.Module) -> Contestant:
    """jit(vmap(grad)) of the LeNet, with noise and update in the same compiled function."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def logits(p: Mapping, x: jax.Array) -> jax.Array:
        x = x[None]
        for name in ("conv1", "conv2"):
            x = lax.conv_general_dilated(
                x, p[f"{name}.weight"], (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW")
            )
            x = jax.nn.relu(x + p[f"{name}.bias"][:, None, None])
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = x.reshape(-1)
        for name in ("fc1", "fc2"):
            x = jax.nn.relu(p[f"{name}.weight"] @ x + p[f"{name}.bias"])
        return p["logits.weight"] @ x + p["logits.bias"]

    def loss(p: Mapping, x: jax.Array, y: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(logits(p, x))[y]

    @jax.jit
    def clipped(p: Mapping, x: jax.Array, y: jax.Array) -> dict:
        each = jax.vmap(jax.grad(loss), (None, 0, 0))(p, x, y)
        squares = sum(jnp.square(g).reshape(len(x), -1).sum(1) for g in each.values())
        weights = jnp.minimum(1, CLIP / jnp.sqrt(squares))
        return {name: jnp.tensordot(weights, g, 1) for name, g in each.items()}

    @jax.jit
    def update(p: Mapping, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[dict, jax.Array]:
        key, *keys = jax.random.split(key, len(p) + 1)
        sums = clipped(p, x, y)
        moved = {
            name: p[name] - LR / len(x) * (sums[name] + NOISE * jax.random.normal(k, p[name].shape))
            for name, k in zip(p, keys, strict=True)
        }
        return moved, key

    state = [{name: jnp.asarray(p.detach().numpy()) for name, p in model.named_parameters()}, jax.random.key(0)]

    def step(x: Tensor, y: Tensor) -> None:
        state[:] = update(*state, x.numpy(), y.numpy())
        jax.block_until_ready(state)

    def sums(x: Tensor, y: Tensor) -> Gradients:
        return {name: torch.tensor(jax.device_get(g)) for name, g in clipped(state[0], x.numpy(), y.numpy()).items()}

    return Contestant(step, sums)


# The tables.


def tables(quick: bool) -> Iterator[Table]:
    torch.set_num_threads(1)
    yield lenet_steps(256, 2 if quick else 21)
    yield head_steps(200, 3 if quick else 101)
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
        check(name, errors, TOLERANCE)
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
            Target("the same, the aim", ratio(samples, FUSED, FAST_SGD), 1.25),
            Target("Opacus hooks / fused", ratio(samples, HOOKS, FUSED), 9, at_most=False),
            Target("Opacus ghost / fused", ratio(samples, GHOST, FUSED), 1.7, at_most=False),
        ],
        notes,
    )


def head_steps(n: int, rounds: int) -> Table:
    x, y = batch(n, 1600)
    contestants = {SGD: sgd(mlp()), FUSED: fused(mlp()), "ours, fused, without noise": fused(mlp(), noise=0)}
    contestants |= {GHOST: opacus(mlp(), "ghost"), HOOKS: opacus(mlp(), "hooks")}
    samples = _steps(verified(contestants, mlp(), x, y), x, y, rounds)
    target = Target("CIFAR head, fused step / SGD step", ratio(samples, FUSED, SGD), 1.5)
    return Table(f"A step on the CIFAR head 1600-500-500-10, batch {n}", "ms", rows(samples, 1e3, SGD), SGD, [target])


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
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
