"""Training steps that are measured against each other: ours, its peers, and plain SGD."""

import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dprobust.engines import ENGINES
from dprobust.models import networks as models
from dprobust.noise import Noise

CLIP, NOISE, LR = 1.0, 1.3, 0.05
UNCLIPPED = 1e9
TOLERANCE, ROUNDED = 1e-5, 0.15
SGD, FAST_SGD, FUSED, HOOKS, GHOST = "SGD", "SGD, channels_last", "ours, fused", "Opacus hooks", "Opacus ghost"
SGD_BFLOAT16, BFLOAT16 = "SGD in bfloat16", "ours, bfloat16"

Gradients = dict[str, Tensor]


class Contestant(NamedTuple):
    """A training step, and the (clipped) gradient sum that it moves the parameters by, noise aside."""

    step: Callable[[Tensor, Tensor], object]
    sums: Callable[[Tensor, Tensor], Gradients]
    private: bool = True
    tolerance: float = TOLERANCE


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


def sgd(
    model: nn.Module,
    memory_format: torch.memory_format = torch.contiguous_format,
    computed_in: torch.dtype = torch.float32,
) -> Contestant:
    model = model.to(memory_format=memory_format)
    parameters, rounded = dict(model.named_parameters()), computed_in != torch.float32

    def sums(x: Tensor, y: Tensor) -> Gradients:
        with torch.autocast("cpu", computed_in, enabled=rounded):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    return _moving(model, sums, 0)._replace(private=False, tolerance=ROUNDED if rounded else TOLERANCE)


def fused(model: nn.Module, noise: float = NOISE) -> Contestant:
    engine = ENGINES["fused"](model)
    return _moving(model, lambda x, y: engine(x, y, CLIP)[0], noise)


def bfloat16(model: nn.Module, noise: float = NOISE) -> Contestant:
    engine = ENGINES["bfloat16"](model)
    return _moving(model, lambda x, y: engine(x, y, CLIP)[0], noise)._replace(tolerance=ROUNDED)


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
