"""Training by SGD and by DP-SGD (Algorithm 1 of the paper), and by what lies between, in one loop.

A step of DP-SGD: the per-example gradients g_i of a batch become g_i / max(1, ||g_i||_2 / C), their sum gets
Gaussian noise, and the parameters move by -lr / b times the result, b being the (expected) batch size. Clipping and
noise can each be left out.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dprobust import checkpoints
from dprobust.arrays import Split
from dprobust.augmentation import augment
from dprobust.engines import ENGINES
from dprobust.errors import UserError
from dprobust.memory import Halved
from dprobust.models.networks import unit
from dprobust.noise import Noise, Observed, Watch
from dprobust.recipe import Training
from dprobust.samplers import batches
from dprobust.seeds import derive, generator, secret_generator

logger = logging.getLogger(__name__)

Gradients = dict[str, Tensor]
Step = Callable[[Tensor, Tensor], tuple[Gradients, Tensor]]
"""Inputs and labels -> sum of the gradients, and their norms before clipping (empty without clipping)."""


def train(
    model: nn.Module,
    data: Split,
    test: Split,
    settings: Training,
    stream: tuple[object, ...],
    checkpoint: Path | None = None,
    code: str = "",
    holdout: Split | None = None,
    watch: Watch | None = None,
) -> list[dict]:
    """Train `model` in place, on the device it is on.

    Killed at any moment and called again with the same arguments, it goes on after the last finished epoch and ends
    with the same parameters, bit for bit (same machine, same number of threads). With secret randomness it goes on with
    new noise and batches: no file holds what either could be drawn again from.

    Args:
        model: maps float images (N, C, H, W) in [0, 1] to logits; the head of a network maps features (N, F).
        data: training examples, of the kind that the model takes.
        test: examples for the accuracy that is recorded after each epoch; nothing is selected by it.
        settings: how to train; an `epsilon` is to be turned into sigma before
            (`dprobust.privacy.resolve`).
        stream: names that the random numbers are derived from (`dprobust.seeds.stream`). Trainings of one stream share
            noise and batches: whoever gets both models can subtract the noise.
        checkpoint: file that holds the state after each epoch; whoever keeps the result removes it. One that belongs to
            other settings, data, stream, code or another model or start is not used. None: no checkpoints.
        code: fingerprint of the code.
        holdout: examples for the checks of `settings.stop`, none of them in `data`; None: `hold_out` draws them out of
            `data`, and the rest is trained on.
        watch: called after each step with what it did, for tests of the noise; what it sees is not private.

    Returns:
        One record an epoch: epoch, test_accuracy and test_loss; with clipping, unless randomness is secret, also
        clipped, the share of examples whose gradient was longer than C, and mean_norm, the mean gradient norm before
        clipping (both computed from the training data without noise: no guarantee covers them); with `settings.stop`
        also step, the steps taken so far, and holdout_accuracy, the highest one found in the epoch, which in the last
        record is the one that ended it.

    Raises:
        UserError: more examples in a batch or held out than there are, parameters that are no longer finite, or an
            accuracy to stop at that was never reached.
        ValueError: `settings.epsilon` is not turned into sigma, or `stop.accuracy_of` into an accuracy.
    """
    check_size(settings, len(data) + (len(holdout) if settings.stop and holdout else 0))
    if settings.mislabelled:
        data = mislabel(data, settings, stream).data
    if settings.stop and holdout is None:
        data, holdout = hold_out(data, settings, stream)
    n, stop = len(data), settings.stop
    if stop and stop.accuracy is None:
        raise ValueError("settings.stop.accuracy_of is not turned into an accuracy")
    steps = settings.steps_per_epoch(n)
    if stop and len(holdout) != stop.holdout:  # else `Training.trained_on` would not be right
        raise ValueError(f"{len(holdout)} examples are held out, but settings.stop.holdout is {stop.holdout}")
    if settings.clip is None:
        model.to(memory_format=torch.channels_last)  # a third faster; the engines of DP-SGD see to it themselves
    device = next(model.parameters()).device
    images, labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)
    secret = settings.randomness == "secret"
    sampling = generator(*stream, "sampling")
    streams = {"augmentation": generator(*stream, "augmentation")} | ({} if secret else {"sampling": sampling})
    noise = Noise(settings.noise_std, stream, secret, device) if settings.noise_std else None
    told = settings.clip is not None and not secret  # of norms; nothing but the parameters leaves a secret training
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    velocities = {name: torch.zeros_like(p) for name, p in parameters.items()} if settings.momentum else {}
    state = _state(model) | {f"velocity.{name}": v for name, v in velocities.items()}
    history: list[dict] = []

    if checkpoint:
        splits = {"data": data, "test": test} | ({"holdout": holdout} if stop else {})
        own = identity(settings, stream, code, model, splits, device)
        if saved := checkpoints.load(checkpoint, own):
            tensors, history = saved[0], saved[1]["history"]
            for name, value in state.items():
                value.copy_(tensors[name])
            for name, random in streams.items():
                random.set_state(tensors[f"generator.{name}"])
            logger.info("going on after epoch %d of %d", len(history), settings.epochs)

    gradients = Halved(_plain(model, settings) if settings.clip is None else _clipped(model, settings), _added)
    started, first = time.monotonic(), len(history)
    for epoch in range(first + 1, settings.epochs + 1):
        if _reached(settings, history):
            break
        # Examples, clipped ones and sum of norms; tensors kept from each step would keep the heap from shrinking.
        clipping = torch.zeros(3, dtype=torch.float64, device=device)
        checks: dict[str, float] = {}
        model.train()
        if secret:  # in each epoch, so that a training that goes on is no other
            sampling = secret_generator()
        with torch.random.fork_rng():  # dropout draws from the global generator
            torch.manual_seed(derive(*stream, "dropout", epoch))
            for i, batch in enumerate(batches(n, settings, sampling), start=(epoch - 1) * steps):
                batch = batch.to(device)
                x, y = images[batch], labels[batch]
                sums, norms = gradients(unit(augment(x, settings.augment, streams["augmentation"])), y)
                noisy = noise.add(i, sums) if noise else sums
                before = {name: p.detach().clone() for name, p in parameters.items()} if watch else {}
                _update(parameters, noisy, velocities, settings, settings.lr_at(i, settings.epochs * steps))
                if watch:
                    watch(Observed(i, sums, noisy, {name: before[name] - p.detach() for name, p in parameters.items()}))
                if settings.clip is not None:
                    clipping[0] += len(norms)
                    clipping[1] += (norms > settings.clip).sum()
                    clipping[2] += norms.sum()
                if stop:
                    checks["step"] = i + 1
                    if (i + 1) % stop.every == 0:
                        found = _accuracy(model, holdout)
                        checks["holdout_accuracy"] = max(found, checks.get("holdout_accuracy", 0.0))
                        if found >= stop.accuracy:
                            break
        norms = _clipping(*clipping.tolist()) if told else {}
        history.append({"epoch": epoch} | evaluate(model, test) | norms | checks)
        # Clipping leaves out gradients that are not finite: the parameters do not tell of them.
        if not (clipping.isfinite().all() and all(torch.isfinite(p).all() for p in parameters.values())):
            raise UserError(
                f"training diverged in epoch {epoch}: parameters or gradients are not finite; use a smaller lr"
            )
        if checkpoint:
            random = {f"generator.{name}": g.get_state() for name, g in streams.items()}
            checkpoints.save(checkpoint, state | random, {"history": history}, own)
        left = (time.monotonic() - started) / (epoch - first) * (settings.epochs - epoch)
        logger.info(
            "epoch %d of %d: test accuracy %.2f %%, %.1f min left",
            epoch,
            settings.epochs,
            100 * history[-1]["test_accuracy"],
            left / 60,
        )
    if stop and not _reached(settings, history):
        best = max(record.get("holdout_accuracy", 0.0) for record in history)
        raise UserError(
            f"stop.accuracy: {stop.accuracy:g} was not reached in {settings.epochs} epochs (at best {best:.4f} of the "
            "examples held out are classified right); ask for less, or train for more epochs"
        )
    return history


class Mislabelled(NamedTuple):
    """Training examples with wrong classes among them."""

    data: Split
    """What is trained on: in its old order, with `labels` for the included and without the left out."""
    included: np.ndarray
    """Places of the canaries that are trained on, in what was given, int64 (k,)."""
    left_out: np.ndarray
    """Places of those that are not, int64 (k,)."""
    labels: np.ndarray
    """Of all examples given the class, of the 2 k canaries the wrong one, int64 (N,)."""


def mislabel(data: Split, settings: Training, stream: tuple[object, ...]) -> Mislabelled:
    """Give `settings.mislabelled` (k) training examples wrong classes and leave out as many others of their kind.

    The included and the left out are drawn alike, so that nothing but training tells them apart: mislabelled examples
    are those that a network has to remember, where membership inference by the loss sees most (Carlini et al. 2022).

    Raises:
        UserError: there are fewer than 2 k examples, or no wrong class.
    """
    k, random = settings.mislabelled, generator(*stream, "mislabelled")
    classes = data.classes or int(data.labels.max()) + 1
    if 2 * k > len(data) or classes < 2:
        raise UserError(f"mislabelled: {k} asks for {2 * k} examples of two classes or more; there are {len(data)}")
    canaries = torch.randperm(len(data), generator=random)[: 2 * k].numpy()
    labels = data.labels.copy()
    labels[canaries] = (labels[canaries] + torch.randint(1, classes, (2 * k,), generator=random).numpy()) % classes
    kept = np.ones(len(data), dtype=bool)
    kept[canaries[k:]] = False
    shown = Split(data.images[kept], labels[kept], data.classes, data.shape)
    return Mislabelled(shown, canaries[:k], canaries[k:], labels)


def hold_out(data: Split, settings: Training, stream: tuple[object, ...]) -> tuple[Split, Split]:
    """What is trained on, in its old order, and the examples held out of it for the checks of `settings.stop`.

    Of features of images and their mirror images (N, 2, F), the images' own are held out: (N, F).

    Raises:
        UserError: as many are to be held out as there are.
    """
    if settings.stop is None:
        raise ValueError("nothing is held out without settings.stop")
    if settings.stop.holdout >= len(data):
        raise UserError(_none_left(settings.stop.holdout, len(data)))
    drawn = torch.zeros(len(data), dtype=torch.bool)
    drawn[torch.randperm(len(data), generator=generator(*stream, "holdout"))[: settings.stop.holdout]] = True
    held = drawn.numpy()
    images = data.images[held]
    return Split(data.images[~held], data.labels[~held], data.classes, data.shape), Split(
        images[:, 0] if images.ndim == 3 else images, data.labels[held], data.classes, data.shape
    )


def check_size(settings: Training, n: int) -> None:
    """UserError if `n` training examples are too few."""
    stop, rest = settings.stop, settings.trained_on(n)
    if stop and rest <= 0:
        raise UserError(_none_left(stop.holdout, n - settings.mislabelled))
    if settings.batch_size > rest:
        held = f", less the {stop.holdout} held out" if stop else ""
        held += f", less {settings.mislabelled} mislabelled" if settings.mislabelled else ""
        raise UserError(
            f"batch_size {settings.batch_size} is larger than the training set of {n}{held}; use a smaller one"
        )
    steps = settings.epochs * settings.steps_per_epoch(rest)
    if stop and stop.every > steps:
        raise UserError(f"stop.every: {stop.every}, but the training has {steps} steps: nothing would be checked")


def _none_left(held: int, n: int) -> str:
    return f"stop.holdout: {held} of {n} training examples leave none to train on; hold out fewer"


def _reached(settings: Training, history: list[dict]) -> bool:
    found = history[-1].get("holdout_accuracy", 0.0) if history else 0.0
    return settings.stop is not None and found >= settings.stop.accuracy


def _accuracy(model: nn.Module, data: Split) -> float:
    """Accuracy in eval mode, which leaves the model in training mode and every random stream as it is."""
    with torch.random.fork_rng():
        accuracy = evaluate(model, data)["test_accuracy"]
    model.train()
    return accuracy


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


def _plain(model: nn.Module, settings: Training) -> Step:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    dtype = computes_in(settings.precision, next(model.parameters()).device)

    def step(x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        sums = torch.autograd.grad(loss, list(parameters.values()))
        return dict(zip(parameters, sums, strict=True)), x.new_empty(0)

    return step


def _clipped(model: nn.Module, settings: Training) -> Step:
    engine, clip = ENGINES[settings.engine](model, settings.clip_function), settings.clip
    return lambda x, y: engine(x, y, clip)


def _added(parts: Sequence[tuple[Gradients, Tensor]]) -> tuple[Gradients, Tensor]:
    sums, norms = zip(*parts, strict=True)
    return {name: torch.stack([part[name] for part in sums]).sum(0) for name in sums[0]}, torch.cat(norms)


@torch.no_grad()
def _update(parameters: Gradients, sums: Gradients, velocities: Gradients, settings: Training, lr: float) -> None:
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


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, those that a state_dict leaves out among them."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {f"model.{name}": value.detach() for name, value in named}


def identity(
    settings: Training, stream: tuple, code: str, model: nn.Module, splits: dict[str, Split], device: torch.device
) -> str:
    """Everything that what is trained depends on, as text. The model's state must be the one before training."""
    data = {
        f"{name}.{part}": torch.from_numpy(getattr(split, part))
        for name, split in splits.items()
        for part in ("images", "labels")
    }
    told = {
        "settings": settings.plain(),
        "stream": list(map(str, stream)),
        "code": code,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "computes_in": str(computes_in(settings.precision, device)),
        "data": checkpoints.digest(data),
        "model": checkpoints.digest(_state(model), "\n".join(_structure(model))),
    }
    return json.dumps(told, sort_keys=True)


def _structure(model: nn.Module) -> Iterable[str]:
    """The modules with their hyperparameters, and which parameters are trained."""
    yield repr(model)
    for path, module in model.named_modules():
        # What a module's own repr may not tell; `training` is set anew in each epoch.
        own = {key: repr(value) for key, value in sorted(vars(module).items()) if key != "training" and _told(value)}
        yield f"{path}: {type(module).__module__}.{type(module).__qualname__} {own}"
    yield from (f"{name}: {p.requires_grad}" for name, p in model.named_parameters())


def _told(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_told, value))
    return value is None or isinstance(value, bool | int | float | complex | str)
