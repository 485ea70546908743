"""Many trainings side by side in one process: networks of one shape, with a leading model axis.

A GPU is idle most of the time while it trains one small network: a step is a hundred small kernels. Here M networks
that differ in seed, sigma, C, learning rate or initial weights make their steps together. Every run keeps the streams
that it has alone: the same initial weights, batches and noise, so that it ends with the parameters of the run trained
alone up to round-off (products are summed in another order; `tests/unit/test_together.py` states how far that goes).

Batches are padded to one width with rows that add exactly nothing. An epoch's batches are drawn beforehand and sent to
the device at once; from there to the end of the epoch nothing waits for the device. On CUDA a step is captured once and
replayed. What an example adds has norm at most C (1 + 1e-6), as with every engine (`dprobust.engines`): its factor is
taken from the norm in float64 of the values that are summed. On a GPU it needs `dprobust.precision.full_float32`, which
the jobs of the workflow call: TF32 rounds to 1e-3.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dprobust import checkpoints
from dprobust.arrays import Split
from dprobust.clipping import coefficients
from dprobust.errors import UserError
from dprobust.models.networks import Normalize, unit
from dprobust.noise import Noise, grid_top
from dprobust.recipe import ALIKE, Training
from dprobust.samplers import batches
from dprobust.seeds import generator
from dprobust.training import check_size, identity

logger = logging.getLogger(__name__)

ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.MaxPool2d, nn.AvgPool2d, Normalize)
TEST_BATCH = 250


def why_not(model: nn.Module, settings: Training) -> str | None:
    """Why a training cannot be one of several side by side, in words; None if it can."""
    if type(model) is not nn.Sequential:
        return f"the network is a {type(model).__name__}, not a plain sequence of layers"
    parameters = [p for layer in model for p in layer.parameters()]
    if len({*map(id, model)}) < len(model) or len({*map(id, parameters)}) < len(parameters):
        return "the network uses a layer or a parameter twice"
    for name, layer in model.named_children():
        if getattr(layer, "inplace", False):
            return f"{name} ({type(layer).__name__}) works in place"
        if any(hooks for key, hooks in vars(layer).items() if key.endswith("_hooks")):
            return f"{name} ({type(layer).__name__}) has hooks"
        if not _known(layer):
            return f"there is no rule with a model axis for {name} ({type(layer).__name__})"
    if any(not p.requires_grad for p in model.parameters()):
        return "the network has frozen parameters"
    return f"it sets {settings.alone}" if settings.alone else None


def _known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in (nn.Linear, *ELEMENTWISE)


class Use(NamedTuple):
    """A layer's input and output in a pass."""

    name: str
    a: Tensor
    """Linear layers (M, B, I); convolutions unfolded, (M, B, I, T)."""
    z: Tensor
    """(M, B, O) or (M, B, O, T)."""


class Stack:
    """M networks of one shape, their parameters in one tensor.

    Args:
        models: sequences of known layers (`why_not`), equal but for the values of their parameters.
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        self.models, self.layers = models, dict(models[0].named_children())
        if len({repr(model) for model in models}) > 1:
            raise ValueError("networks side by side must have the same layers")
        named = [dict(model.named_parameters()) for model in models]
        self.shapes = {name: p.shape for name, p in named[0].items()}
        self.flat = torch.stack([torch.cat([p.detach().flatten() for p in own.values()]) for own in named])
        """Parameters of all networks, (M, P), those of a network in the order of its `named_parameters`."""

    def __len__(self) -> int:
        return len(self.models)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parts (M, ...) of a tensor (M, P), by parameter."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def write_back(self) -> None:
        """Give the networks their parameters."""
        values = self.views(self.flat)
        with torch.no_grad():
            for i, model in enumerate(self.models):
                for name, p in model.named_parameters():
                    p.copy_(values[name][i])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Use]]:
        """Logits (M, B, K) of inputs (M, B, ...), and the uses of layers with parameters."""
        (m, b), values, uses = x.shape[:2], self.views(self.flat), []
        for name, layer in self.layers.items():
            if type(layer) is nn.Linear:
                z = x @ values[f"{name}.weight"].mT
                z, a = self._biased(z, values.get(f"{name}.bias"), (m, 1, -1)), x
            elif type(layer) is nn.Conv2d:
                size = x.shape[3:]
                a = F.unfold(x.flatten(0, 1), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
                a = a.view(m, b, *a.shape[1:])
                weight = values[f"{name}.weight"].flatten(2)
                z = weight @ a.transpose(1, 2).flatten(2)  # (M, O, B T)
                z = z.view(m, weight.shape[1], b, -1).transpose(1, 2)
                z = self._biased(z, values.get(f"{name}.bias"), (m, 1, -1, 1))
            else:
                x = x.flatten(2) if type(layer) is nn.Flatten else layer(x.flatten(0, 1)).unflatten(0, (m, b))
                continue
            if torch.is_grad_enabled() and not z.requires_grad:
                z.requires_grad_()
            uses.append(Use(name, a, z))
            x = z if type(layer) is nn.Linear else z.unflatten(3, _out(layer, size))
        return x, uses

    @staticmethod
    def _biased(z: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        return z if bias is None else z + bias.view(shape)

    def clipped_sums(
        self, x: Tensor, y: Tensor, rows: Tensor, clip: Tensor, clip_function: str = "abadi"
    ) -> tuple[Tensor, Tensor]:
        """Sums of the per-example gradients of the cross-entropy, clipped.

        Args:
            x: inputs (M, B, ...).
            y: classes, int64 (M, B).
            rows: bool (M, B), which rows are examples: what the others hold, nan too, adds nothing.
            clip: C of each network, (M, 1); infinite for no clipping.
            clip_function: `abadi` or `automatic`.

        Returns:
            Sums, float32 (M, P), and norms before clipping, (M, B), 0 where there is no example.
        """
        with torch.enable_grad():
            logits, uses = self.forward(x)
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
            found = torch.autograd.grad(losses.masked_fill(~rows, 0).sum(), [use.z for use in uses])
        with torch.no_grad():
            squares, explicit = torch.zeros(y.shape, dtype=torch.float64, device=x.device), {}
            for use, g in zip(uses, found, strict=True):
                if g.dim() == 4:
                    explicit[use.name] = g @ use.a.mT  # (M, B, O, I)
                    squares += _squares(explicit[use.name])
                else:
                    squares += _squares(g) * _squares(use.a)
                if f"{use.name}.bias" in self.shapes:
                    squares += _squares(g.sum(3) if g.dim() == 4 else g)
            norms = squares.sqrt().to(x.dtype).masked_fill(~rows, 0)
            missing = ~(rows & norms.isfinite())
            factors = coefficients(norms, clip, clip_function).masked_fill(missing, 0)
            sums = {}
            for use, g in zip(uses, found, strict=True):
                # A factor of 0 does not remove nan and infinity.
                g = g.masked_fill(missing.view(*missing.shape, *[1] * (g.dim() - 2)), 0)
                bias = g.sum(3) if g.dim() == 4 else g
                if g.dim() == 4:
                    gradients = explicit[use.name].flatten(2).masked_fill(missing[..., None], 0)
                    sums[f"{use.name}.weight"] = factors[:, None] @ gradients
                else:
                    a = use.a.masked_fill(missing[..., None], 0)
                    sums[f"{use.name}.weight"] = (g * factors[..., None]).mT @ a
                sums[f"{use.name}.bias"] = factors[:, None] @ bias
            return torch.cat([sums[name].flatten(1) for name in self.shapes], dim=1), norms


def _squares(rows: Tensor) -> Tensor:
    """Squared norms (M, B) of (M, B, ...), in float64."""
    return torch.linalg.vector_norm(rows.flatten(2), dim=2, dtype=torch.float64).square()


def _out(layer: nn.Conv2d, size: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    )


class _Step:
    """One step of all runs, on tensors that stay where they are."""

    def __init__(self, stack: Stack, settings: Sequence[Training], images: Tensor, labels: Tensor, width: int) -> None:
        m, device = len(stack), stack.flat.device
        self.stack, self.settings, self.images, self.labels = stack, settings, images, labels

        def column(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        self.batch = torch.zeros(m, width, dtype=torch.int64, device=device)
        self.rows = torch.zeros(m, width, dtype=torch.bool, device=device)
        self.noise = torch.zeros(stack.flat.shape, dtype=torch.float64, device=device)
        self.clip = column([torch.inf if s.clip is None else s.clip for s in settings])
        self.std = column([s.noise_std for s in settings], torch.float64)
        self.top = column([grid_top(s.noise_std) if s.noise_std else 0.0 for s in settings], torch.float64)
        self.noisy = self.std > 0
        self.lr = column([s.lr for s in settings])
        self.decay = column([s.weight_decay * s.batch_size for s in settings])
        self.momentum = column([s.momentum for s in settings])
        self.nesterov = column([float(s.nesterov) for s in settings]).bool()
        self.velocity = torch.zeros_like(stack.flat)
        self.told = torch.zeros(m, 3, dtype=torch.float64, device=device)
        """Of each run since the beginning of the epoch: examples, those longer than C, the sum of their norms."""
        self._moved = any(s.momentum for s in settings)
        self._run: Callable[[], None] = self._compute

    def __call__(self) -> None:
        self._run()

    @torch.no_grad()
    def _compute(self) -> None:
        x, y = unit(self.images[self.batch]), self.labels[self.batch]
        sums, norms = self.stack.clipped_sums(x, y, self.rows, self.clip, self.settings[0].clip_function)
        self.told += torch.stack([self.rows.sum(1), (norms > self.clip).sum(1), norms.sum(1)], dim=1)
        drawn = (self.noise * self.std).add_(sums).add_(self.top).sub_(self.top)
        step = torch.where(self.noisy, drawn.to(sums.dtype), sums)
        step = step + self.decay * self.stack.flat
        if self._moved:
            self.velocity.mul_(self.momentum).add_(step)
            step = torch.where(self.nesterov, step + self.momentum * self.velocity, self.velocity)
        self.stack.flat.sub_(step * (self.lr / self.settings[0].batch_size))

    def capture(self) -> None:
        """Record the kernels of a step, on CUDA, to be replayed: what the tensors hold afterwards is as before."""
        state = (self.stack.flat, self.velocity, self.told)
        saved = [value.clone() for value in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        for value, before in zip(state, saved, strict=True):
            value.copy_(before)
        self._run = graph.replay


def train_together(
    models: Sequence[nn.Sequential],
    data: Split,
    test: Split,
    settings: Sequence[Training],
    streams: Sequence[tuple[object, ...]],
    checkpoint: Path | None = None,
    code: str = "",
) -> list[list[dict]]:
    """Train networks in place, side by side, each as `dprobust.training.train` trains it alone up to round-off.

    Args:
        models: networks of one shape, on one device (`why_not`).
        data: training examples, the same for all.
        test: examples for the accuracy after each epoch.
        settings: of each; they may differ in all but `dprobust.recipe.ALIKE`.
        streams: names of the random streams of each.
        checkpoint: file for the state of all after each epoch, as for `train`.
        code: fingerprint of the code.

    Returns:
        The history of each, as `train` gives it.

    Raises:
        UserError: trainings that cannot be side by side, and what `train` raises.
    """
    for model, own in zip(models, settings, strict=True):
        if reason := why_not(model, own):
            raise UserError(f"training together: {reason}")
        check_size(own, len(data))
    for name in ALIKE:
        if len({json.dumps(getattr(own, name)) for own in settings}) > 1:
            raise UserError(f"training together: the runs differ in {name}")
    stack, first, n = Stack(models), settings[0], len(data)
    device, steps = stack.flat.device, first.steps_per_epoch(n)
    images, labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)
    tests = torch.from_numpy(test.images).to(device), torch.from_numpy(test.labels).to(device)
    noises = [
        Noise(s.noise_std, stream, False, device) if s.noise_std else None
        for s, stream in zip(settings, streams, strict=True)
    ]
    random = [generator(*stream, "sampling") for stream in streams]
    histories: list[list[dict]] = [[] for _ in models]
    # Truncated batches are at most that wide, Poisson's hardly ever wider.
    least = first.batch_size if first.sampling == "shuffle" else first.cap
    step, own = _Step(stack, settings, images, labels, least), ""
    if checkpoint:
        splits = {"data": data, "test": test}
        each = zip(settings, streams, models, strict=True)
        own = json.dumps([identity(s, stream, code, model, splits, device) for s, stream, model in each])
        if saved := checkpoints.load(checkpoint, own):
            tensors, histories = saved[0], saved[1]["histories"]
            least = saved[1]["width"]
            stack.flat.copy_(tensors["flat"])
            step.velocity.copy_(tensors["velocity"])
            for i, of in enumerate(random):
                of.set_state(tensors[f"generator.{i}"])
            logger.info("going on after epoch %d of %d", len(histories[0]), first.epochs)
    captured = 0
    for epoch in range(len(histories[0]) + 1, first.epochs + 1):
        drawn = [[*batches(n, s, of)] for s, of in zip(settings, random, strict=True)]
        width = max([least, *(len(batch) for run in drawn for batch in run)])
        if width > step.batch.shape[1]:  # a Poisson batch larger than any before: nothing is cut
            step.batch, step.rows = (value.new_zeros(len(stack), width) for value in (step.batch, step.rows))
        plan, rows = _padded(drawn, step.batch.shape[1], device)
        if device.type == "cuda" and captured != step.batch.shape[1]:
            step.batch.copy_(plan[0])
            step.rows.copy_(rows[0])
            step.capture()
            captured = step.batch.shape[1]
        step.told.zero_()
        rates = torch.tensor(
            [[s.lr_at(i, first.epochs * steps) for s in settings] for i in range((epoch - 1) * steps, epoch * steps)],
            device=device,
        )
        for i in range(steps):
            step.batch.copy_(plan[i])
            step.rows.copy_(rows[i])
            step.lr.copy_(rates[i][:, None])
            for run, noise in enumerate(noises):
                if noise:
                    step.noise[run].copy_(noise.draw((epoch - 1) * steps + i, stack.flat.shape[1]))
            step()
        found = _evaluate(stack, *tests)
        for history, scores, told, s in zip(histories, found, step.told.tolist(), settings, strict=True):
            drawn_examples = max(told[0], 1)
            norms = {"clipped": told[1] / drawn_examples, "mean_norm": told[2] / drawn_examples}
            history.append({"epoch": epoch} | scores | (norms if s.clip is not None else {}))
        # Gradients that are not finite are left out: the parameters alone do not tell of them.
        finite = stack.flat.isfinite().all(1) & step.told.isfinite().all(1)
        if not finite.all():
            run = (~finite).nonzero()[0].item()
            raise UserError(f"training diverged in epoch {epoch}: run {run} is not finite; use a smaller lr")
        if checkpoint:
            tensors = {f"generator.{i}": of.get_state() for i, of in enumerate(random)}
            tensors |= {"flat": stack.flat, "velocity": step.velocity}
            checkpoints.save(checkpoint, tensors, {"histories": histories, "width": step.batch.shape[1]}, own)
        accuracies = [history[-1]["test_accuracy"] for history in histories]
        least_accurate, most = 100 * min(accuracies), 100 * max(accuracies)
        logger.info("epoch %d of %d: test accuracy %.2f to %.2f %%", epoch, first.epochs, least_accurate, most)
    stack.write_back()
    return histories


def _padded(drawn: list[list[Tensor]], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The batches of an epoch, (steps, M, width), and which of their rows are examples; sent at once."""
    steps, m = len(drawn[0]), len(drawn)
    plan, rows = torch.zeros(steps, m, width, dtype=torch.int64), torch.zeros(steps, m, width, dtype=torch.bool)
    for run, batch_of in enumerate(drawn):
        for i, batch in enumerate(batch_of):
            plan[i, run, : len(batch)], rows[i, run, : len(batch)] = batch, True
    if device.type == "cuda":
        plan, rows = plan.pin_memory(), rows.pin_memory()
    return plan.to(device, non_blocking=True), rows.to(device, non_blocking=True)


@torch.no_grad()
def _evaluate(stack: Stack, images: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """Accuracy and mean cross-entropy of each network, with one transfer at the end."""
    m, told = len(stack), torch.zeros(len(stack), 2, dtype=torch.float64, device=labels.device)
    for x, y in zip(images.split(TEST_BATCH), labels.split(TEST_BATCH), strict=True):
        logits, _ = stack.forward(unit(x)[None].expand(m, *x.shape))
        right = (logits.argmax(2) == y).sum(1)
        loss = F.cross_entropy(logits.double().flatten(0, 1), y.repeat(m), reduction="none").view(m, -1).sum(1)
        told += torch.stack([right, loss], dim=1)
    return [{"test_accuracy": right / len(labels), "test_loss": loss / len(labels)} for right, loss in told.tolist()]
