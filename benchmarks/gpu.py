"""Many trainings side by side on a CUDA GPU: a step of M models, and what the paper's MNIST grid would take."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Spread, Table, Target, interleave, progress, rows
from dprobust.engines import ENGINES
from dprobust.models import networks
from dprobust.noise import Noise
from dprobust.precision import full_float32
from dprobust.recipe import Training
from dprobust.together import Stack, _Step

EXAMPLES, BATCH, MODELS = 60_000, 256, (1, 5, 25)
RUNS, STEPS = 85, 50 * 234
"""Trainings of config.yaml on MNIST, and the steps of each."""
ALONE = "one model alone, engine fused"


def tables(quick: bool) -> Iterator[Table]:
    if not torch.cuda.is_available():
        progress("  not measured: there is no CUDA device")
        return
    full_float32()
    yield steps(torch.device("cuda"), (1, 2) if quick else MODELS, 5 if quick else 200, 2 if quick else 10)


def steps(device: torch.device, models: tuple[int, ...], inner: int, rounds: int, size: int = EXAMPLES) -> Table:
    """A step of DP-SGD, noise and update included: alone, and of M models, captured where the device can."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, 1, 28, 28), generator=random, dtype=torch.uint8).to(device)
    labels = torch.randint(10, (size,), generator=random).to(device)
    contestants = {ALONE: alone(device, images, labels)}
    contestants |= {f"{m} side by side": together(m, device, images, labels) for m in models}

    def per_step(step) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(inner):
            step()
        _wait(device)
        return (time.perf_counter() - start) / inner

    samples = interleave({name: lambda step=step: per_step(step) for name, step in contestants.items()}, rounds)
    last = f"{models[-1]} side by side"
    minutes = [seconds / models[-1] * RUNS * STEPS / 60 for seconds in samples[last]]
    where = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    return Table(
        f"A step of DP-SGD on {where}: LeNet 800-500-10, batch {BATCH}, all models of a row together",
        "ms",
        rows(samples, 1000, ALONE),
        ALONE,
        [Target(f"training of the paper's MNIST grid ({RUNS} runs), minutes", Spread.of(minutes), 30)],
        ["Evaluation after each epoch, start-up and metrics are not in it."],
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def lenet(seed: int, device: torch.device) -> torch.nn.Sequential:
    normalize = {"mean": [0.1307], "std": [0.3081]}
    return networks.build({"name": "lenet", "normalize": normalize}, (1, 28, 28), 10, seed).to(device)


def alone(device: torch.device, images: Tensor, labels: Tensor):
    """A step as `dprobust.training.train` makes it."""
    model, noise = lenet(0, device), Noise(1.3, ("bench",), False, device)
    engine, parameters, at = ENGINES["fused"](model), dict(model.named_parameters()), iter(range(10**9))
    chosen = torch.randperm(len(labels))[:BATCH].to(device)

    @torch.no_grad()
    def step() -> None:
        sums, _ = engine(networks.unit(images[chosen]), labels[chosen], 1.0)
        for name, value in noise.add(next(at), sums).items():
            parameters[name].add_(value, alpha=-0.05 / BATCH)

    return step


def together(m: int, device: torch.device, images: Tensor, labels: Tensor):
    """A step of M models."""
    settings = [Training(sigma=1.3, clip=1.0, sampling="truncated_poisson", batch_size=BATCH) for _ in range(m)]
    stack = Stack([lenet(i, device) for i in range(m)])
    made = _Step(stack, settings, images, labels, settings[0].cap)
    noises = [Noise(1.3, ("bench", i), False, device) for i in range(m)]
    made.batch[:, :BATCH] = torch.randint(len(labels), (m, BATCH)).to(device)
    made.rows[:, :BATCH] = True
    if device.type == "cuda":
        made.capture()
    at = iter(range(10**9))

    def step() -> None:
        i = next(at)
        for run, noise in enumerate(noises):
            made.noise[run].copy_(noise.draw(i, stack.flat.shape[1]))
        made()

    return step
