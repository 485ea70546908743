"""Training by SGD and by DP-SGD (Algorithm 1 of the paper), one loop for both.

A step of DP-SGD: the per-example gradients g_i of a batch become g_i / max(1, ||g_i||_2 / C), their sum gets
Gaussian noise, and the parameters move by -lr / b times the result, b being the (expected) batch size.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dprobust import checkpoints
from dprobust.arrays import Split
from dprobust.augmentation import augment
from dprobust.dpsgd import ENGINES
from dprobust.errors import UserError
from dprobust.models.networks import unit
from dprobust.seeds import derive, generator

logger = logging.getLogger(__name__)

Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """How to train. With `clip` None: SGD; else DP-SGD.

    Attributes:
        epochs: passes over the data (in expectation, with Poisson sampling).
        batch_size: b, the batch size; with Poisson sampling its expectation.
        lr: learning rate; with schedule "one_cycle" its peak.
        momentum: of the (noisy) gradients; 0 is the paper's plain step.
        nesterov: look ahead by Nesterov's rule.
        weight_decay: factor of the parameters in the gradient (l2 regularisation).
        schedule: "constant", or "one_cycle": linear from 0 to `lr` in the first fifth of the steps, then back to 0 as
            half a cosine.
        augment: random changes of the images, keys of `dprobust.augmentation.KINDS`.
        precision: of SGD's forward and backward pass: "float32", or "auto": bfloat16, by autocast, where the device
            computes in it (`computes_in`). Parameters are float32 throughout.
        sampling: "shuffle": a new order each epoch, batches of exactly b, the incomplete last one left out;
            "poisson": each example is in each batch with probability b / N, independently.
        clip: C, the bound on the l2 norm of an example's gradient.
        noise_std: standard deviation of the noise on the clipped sum: sigma C in Algorithm 1.
        engine: how the clipped sum is computed, a key of `dprobust.dpsgd.ENGINES`.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    augment: tuple[str, ...] = ()
    precision: str = "float32"
    sampling: str = "shuffle"
    clip: float | None = None
    noise_std: float = 0.0
    engine: str = "fused"

    @property
    def private(self) -> bool:
        return self.clip is not None

    def steps_per_epoch(self, n: int) -> int:
        """Steps in an epoch over `n` examples, the same for both ways of sampling."""
        return n // self.batch_size

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0 to steps - 1."""
        if self.schedule == "constant":
            return self.lr
        done, rise = (step + 0.5) / steps, 0.2
        return self.lr * (done / rise if done < rise else (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2)

    def mechanism(self, n: int) -> dict[str, float | str | None]:
        """What privacy accounting needs to know of a training on `n` examples (`dprobust.privacy.account`)."""
        return {
            "sampling": self.sampling,
            "noise_multiplier": self.noise_std / self.clip if self.private else None,
            "sample_rate": self.batch_size / n,
            "steps": self.epochs * self.steps_per_epoch(n),
            "epochs": self.epochs,
        }


def train(
    model: nn.Module,
    data: Split,
    test: Split,
    settings: Settings,
    stream: tuple[object, ...],
    checkpoint: Path | None = None,
    code: str = "",
) -> list[dict]:
    """Train `model` in place, on the device it is on.

    Killed at any moment and called again with the same arguments, it goes on after the last finished epoch and ends
    with the same parameters, bit for bit (same machine, same number of threads).

    Args:
        model: maps float images (N, C, H, W) in [0, 1] to logits; the head of a network maps features (N, F).
        data: training examples, of the kind that the model takes.
        test: examples for the accuracy that is recorded after each epoch; nothing is selected by it.
        settings: how to train.
        stream: names that the random numbers are derived from, for example (seed, run).
        checkpoint: file that holds the state after each epoch and is removed at the end; None: no checkpoints.
        code: fingerprint of the code; a checkpoint made by other code is not used.

    Returns:
        One record an epoch: epoch, test_accuracy and test_loss; for DP-SGD also clipped, the share of examples whose
        gradient was longer than C, and mean_norm, the mean gradient norm before clipping.

    Raises:
        UserError: a batch larger than the data, or parameters that are no longer finite.
    """
    n = len(data)
    if settings.batch_size > n:
        raise UserError(f"batch_size {settings.batch_size} is larger than the training set of {n}")
    if not settings.private:
        model.to(memory_format=torch.channels_last)  # a third faster; the engines of DP-SGD see to it themselves
    device = next(model.parameters()).device
    images, labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)
    streams = {
        "sampling": generator(*stream, "sampling"),
        "noise": generator(*stream, "noise", device=device),
        "augmentation": generator(*stream, "augmentation"),
    }
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    velocities = {name: torch.zeros_like(p) for name, p in parameters.items()} if settings.momentum else {}
    state = model.state_dict() | {f"velocity.{name}": v for name, v in velocities.items()}
    history: list[dict] = []

    identity = _identity(settings, stream, code, data, test, str(device))
    if checkpoint and (saved := checkpoints.load(checkpoint, identity)):
        tensors, history = saved[0], saved[1]["history"]
        for name, value in state.items():
            value.copy_(tensors[name])
        for name, random in streams.items():
            random.set_state(tensors[f"generator.{name}"])
        logger.info("going on after epoch %d of %d", len(history), settings.epochs)

    gradients = (
        _private_gradients(model, settings, streams["noise"]) if settings.private else _gradients(model, settings)
    )
    steps = settings.steps_per_epoch(n)
    started, first = time.monotonic(), len(history)
    for epoch in range(first + 1, settings.epochs + 1):
        # Examples, clipped ones and sum of norms; tensors kept from each step would keep the heap from shrinking.
        clipping = torch.zeros(3, dtype=torch.float64, device=device)
        model.train()
        with torch.random.fork_rng():  # dropout draws from the global generator
            torch.manual_seed(derive(*stream, "dropout", epoch))
            for i, batch in enumerate(batches(n, settings, streams["sampling"]), start=(epoch - 1) * steps):
                x, y = images[batch.to(device)], labels[batch.to(device)]
                sums, norms = gradients(unit(augment(x, settings.augment, streams["augmentation"])), y)
                _update(parameters, sums, velocities, settings, settings.lr_at(i, settings.epochs * steps))
                if settings.private:
                    clipping[0] += len(norms)
                    clipping[1] += (norms > settings.clip).sum()
                    clipping[2] += norms.sum()
        told = _clipping(*clipping.tolist()) if settings.private else {}
        history.append({"epoch": epoch} | evaluate(model, test) | told)
        if not all(torch.isfinite(p).all() for p in parameters.values()):
            raise UserError(f"training diverged in epoch {epoch}: parameters are not finite; use a smaller lr")
        if checkpoint:
            random = {f"generator.{name}": g.get_state() for name, g in streams.items()}
            checkpoints.save(checkpoint, state | random, {"history": history}, identity)
        left = (time.monotonic() - started) / (epoch - first) * (settings.epochs - epoch)
        logger.info(
            "epoch %d of %d: test accuracy %.2f %%, %.1f min left",
            epoch,
            settings.epochs,
            100 * history[-1]["test_accuracy"],
            left / 60,
        )
    return history


def computes_in(precision: str, device: torch.device) -> torch.dtype:
    """The type of a forward pass: with precision "auto" bfloat16 on a device that has instructions for it."""
    if precision == "float32":
        return torch.float32
    if device.type == "cpu":
        # Other CPUs emulate it, many times slower than float32.
        native = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    else:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def batches(n: int, settings: Settings, random: torch.Generator) -> Iterator[Tensor]:
    """The batches of an epoch over `n` examples, as indices (int64); a Poisson batch may be empty."""
    steps, b = settings.steps_per_epoch(n), settings.batch_size
    if settings.sampling == "shuffle":
        yield from torch.randperm(n, generator=random)[: steps * b].view(steps, b)
    else:
        for _ in range(steps):
            # float64: in float32 the rate would be rounded to a multiple of 2^-24.
            yield (torch.rand(n, generator=random, dtype=torch.float64) < b / n).nonzero().squeeze(1)


@torch.no_grad()
def evaluate(model: nn.Module, data: Split, batch_size: int = 1000) -> dict[str, float]:
    """Accuracy and mean cross-entropy of `model` on `data`."""
    model.eval()
    device = next(model.parameters()).device
    correct, loss = 0, 0.0
    for start in range(0, len(data), batch_size):
        part = slice(start, start + batch_size)
        logits = model(unit(torch.from_numpy(data.images[part]).to(device)))
        y = torch.from_numpy(data.labels[part]).to(device)
        correct += (logits.argmax(1) == y).sum().item()
        loss += F.cross_entropy(logits.double(), y, reduction="sum").item()
    return {"test_accuracy": correct / len(data), "test_loss": loss / len(data)}


def _gradients(model: nn.Module, settings: Settings) -> Callable[[Tensor, Tensor], tuple[Gradients, Tensor]]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    dtype = computes_in(settings.precision, next(model.parameters()).device)

    def step(x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        sums = torch.autograd.grad(loss, list(parameters.values()))
        return dict(zip(parameters, sums, strict=True)), x.new_empty(0)

    return step


def _private_gradients(
    model: nn.Module, settings: Settings, random: torch.Generator
) -> Callable[[Tensor, Tensor], tuple[Gradients, Tensor]]:
    engine = ENGINES[settings.engine](model)

    def step(x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        sums, norms = engine(x, y, settings.clip)
        for value in sums.values():
            noise = torch.empty_like(value, memory_format=torch.contiguous_format)
            value += noise.normal_(0.0, settings.noise_std, generator=random)
        return sums, norms

    return step


@torch.no_grad()
def _update(parameters: Gradients, sums: Gradients, velocities: Gradients, settings: Settings, lr: float) -> None:
    for name, parameter in parameters.items():
        step = sums[name]
        if settings.weight_decay:
            step = step.add(parameter, alpha=settings.weight_decay * settings.batch_size)
        if settings.momentum:
            velocity = velocities[name].mul_(settings.momentum).add_(step)
            step = step.add(velocity, alpha=settings.momentum) if settings.nesterov else velocity
        parameter.add_(step, alpha=-lr / settings.batch_size)


def _clipping(examples: float, clipped: float, norms: float) -> dict[str, float]:
    drawn = max(examples, 1)  # an epoch of empty Poisson batches
    return {"clipped": clipped / drawn, "mean_norm": norms / drawn}


def _identity(settings: Settings, stream: tuple, code: str, data: Split, test: Split, device: str) -> str:
    digest = hashlib.sha256()
    for split in (data, test):
        digest.update(np.ascontiguousarray(split.images))
        digest.update(np.ascontiguousarray(split.labels))
    told = [
        asdict(settings),
        list(map(str, stream)),
        code,
        device,
        torch.get_num_threads(),
        digest.hexdigest(),
    ]
    return json.dumps(told, sort_keys=True)
