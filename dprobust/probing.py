"""Whether a model keeps the examples of a batch apart, found out by running it.

The output of an example is compared with its output among other examples, for the model's own and for random weights:
a head that starts at zero hides whatever comes before it, and values can mix where no gradient does.
"""

import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dprobust.objectives import Loss, losses

# Examples in a batch of the probe.
ROWS = 4
# What round-off may change, relative to the largest logit: in float64, else, and in a batch of another size.
ROUND_OFF, COARSE = 1e-6, 1e-3

Values = dict[str, Tensor]
Mode = tuple[tuple[type, bool], ...]


class Mixing(ValueError):
    """The model has no per-example gradients; the message says why, and what to do."""


class Outcome(NamedTuple):
    """Logits of a pass, and the buffers after it."""

    logits: Tensor
    buffers: Values


# Modes in which a model is known to keep examples apart, each with the buffers that a pass in it changes.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[Mode, frozenset[str]]] = weakref.WeakKeyDictionary()


def mode(model: nn.Module) -> Mode:
    """What the verdict on a model holds for: the kinds of its modules, and which of them are in training mode."""
    return tuple((type(module), module.training) for module in model.modules())


def changed_buffers(model: nn.Module, x: Tensor) -> frozenset[str]:
    """Names of the buffers that a forward pass changes, whatever the examples are (the vectors of spectral norm).

    The first call with a model, and with a mode of it, makes 60 passes of four examples like those of x. None of them
    is seen in the model or in a random stream.

    Raises:
        ValueError: an output depends on the other examples in the batch, or on earlier passes; or a buffer on the
            examples.
    """
    known, now = _KNOWN.setdefault(model, {}), mode(model)
    if now not in known:
        found = _probe(model, x)
        if not telling(x):
            return found
        known[now] = found
    return known[now]


def telling(x: Tensor) -> bool:
    """Whether other examples can be made from those of x: of integers, no others than in x are known to be valid."""
    return x.numel() > 0 and (x.is_floating_point() or bool((x[1:] != x[:1]).any()))


def check_outputs(outputs: Tensor, n: int) -> Tensor:
    """The outputs; ValueError if they are not a row for each of n examples."""
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != n:
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must return a row for each of {n} examples, got {found}")
    return outputs


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory is short; on a CPU nothing but its text tells."""
    short = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in short)


# Examples and weights.


def given(x: Tensor) -> Tensor:
    """Four examples (or fewer, of integers) from all over the batch x; what is not finite is replaced."""
    picked = x.detach()[torch.linspace(0, len(x) - 1, min(ROWS, len(x))).long()]
    if x.is_floating_point():
        picked = torch.where(picked.isfinite(), picked, _bounds(x)[0])
        if len(picked) < ROWS:
            picked = torch.cat([picked, drawn(x, torch.Generator().manual_seed(1))[len(picked) :]])
    return picked


def drawn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Four random examples: numbers from the range of x; of integers, at every position those that x has there."""
    shape = (ROWS, *x.shape[1:])
    if x.is_floating_point():
        low, high = _bounds(x)
        if high > low:
            return (low + (high - low) * torch.rand(shape, generator=generator).to(x.device)).to(x.dtype)
        return (low + torch.randn(shape, generator=generator).to(x.device)).to(x.dtype)
    return x.detach().gather(0, torch.randint(len(x), shape, generator=generator).to(x.device))


def _bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    finite = x.detach()[x.isfinite()].double() if x.device.type != "mps" else x.detach()[x.isfinite()]
    return (finite.min(), finite.max()) if len(finite) else (finite.new_zeros(()), finite.new_ones(()))


def random_weights(model: nn.Module, generator: torch.Generator) -> Values:
    """Random values for all parameters, by name, of such a size that signals neither vanish nor explode."""
    found = {}
    for name, p in model.named_parameters():
        if p.is_floating_point():
            scale = (2 / max(1, p[0].numel())) ** 0.5 if p.dim() > 1 else 0.5
            found[name] = (scale * torch.randn(p.shape, generator=generator)).to(p.device, p.dtype)
        else:
            found[name] = p.detach()
    return found


@contextmanager
def seeded(x: Tensor, seed: int) -> Iterator[None]:
    """While it lasts, the global streams of torch, numpy and Python start at `seed`; then they are as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if x.is_cuda:
            with torch.cuda.device(x.device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


# The comparisons.


def _probe(model: nn.Module, x: Tensor) -> frozenset[str]:
    generator = torch.Generator().manual_seed(0)
    own = {name: p.detach() for name, p in model.named_parameters()}
    batches = given(x), drawn(x, generator)
    changed: set[str] = set()
    for weights in (own, random_weights(model, generator), random_weights(model, generator)):
        for batch in batches:
            try:
                changed |= _compare(model, weights, batch, x, generator)
            except Mixing:
                raise
            except Exception:
                # Arbitrary weights and pixels may be what a model cannot take; its own and real ones are not.
                if weights is own and batch is batches[0]:
                    raise
    return frozenset(changed)


def _compare(model: nn.Module, weights: Values, batch: Tensor, x: Tensor, generator: torch.Generator) -> set[str]:
    """In float64, where a difference is none of round-off, unless the model has something against it."""
    state = weights | dict(model.named_buffers())
    try:
        wide = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
        return _compare_in(model, wide, batch, x, generator, ROUND_OFF)
    except Mixing:
        raise
    except Exception:
        return _compare_in(model, state, batch, x, generator, COARSE)


def _compare_in(
    model: nn.Module, state: Values, batch: Tensor, x: Tensor, generator: torch.Generator, tolerance: float
) -> set[str]:
    wide = tolerance == ROUND_OFF and x.is_floating_point()

    def run(examples: Tensor, seed: int = 0) -> Outcome:
        return _run(model, state, examples.double() if wide else examples, seed)

    first, second, reseeded = run(batch), run(batch), run(batch, 1)
    if _differ(first.logits, second.logits, tolerance):
        raise Mixing(
            "two equal passes of the model give different outputs: let it draw random numbers from torch's global "
            "generator only, and keep nothing from one pass to the next"
        )
    for row in range(len(batch)):
        others = drawn(x, generator)[: len(batch)]
        others[row] = batch[row]
        among = run(others)
        if _differ(first.logits[row], among.logits[row], tolerance):
            raise _mixing(model)
        for name, value in first.buffers.items():
            if not torch.equal(value, among.buffers[name]) and not value.isnan().any():
                raise Mixing(
                    f"a pass writes what it computes from the examples into the buffer {name}, which no noise covers: "
                    "use a layer that keeps no statistics, or put this one into evaluation mode"
                )
    if not _differ(first.logits, reseeded.logits, tolerance):
        try:
            alone = run(batch[:1])
        except Exception:
            # A model that squeezes its tensors may need two examples.
            alone = None
        if alone and _differ(first.logits[:1], alone.logits, COARSE):
            raise _mixing(model)
    return {name for name, value in first.buffers.items() if not torch.equal(value, state[name])}


def _run(model: nn.Module, state: Values, examples: Tensor, seed: int) -> Outcome:
    state = {name: value.clone() for name, value in state.items()}
    for name, p in model.named_parameters():
        state[name].requires_grad_(p.requires_grad)
    with torch.enable_grad(), seeded(examples, seed):
        outputs = torch.func.functional_call(model, state, (examples.clone(),))
    # `state` has also the buffers that the pass put in place of others.
    buffers = {name: state[name].detach() for name, _ in model.named_buffers()}
    return Outcome(check_outputs(outputs, len(examples)).detach(), buffers)


def _differ(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = a.nan_to_num(0, 0, 0).abs().max()
    return not torch.allclose(a, b, rtol=0, atol=tolerance * scale.item(), equal_nan=True)


def _mixing(model: nn.Module) -> Mixing:
    state = "training" if model.training else "evaluation"
    return Mixing(
        f"the model mixes the examples of a batch (in {state} mode): it has no per-example gradients; take out what "
        "computes across the batch dimension, such as statistics, sorting or shuffling"
    )


def check_loss(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> None:
    """ValueError if the loss of an example depends on the other examples of x and y."""
    examples, targets = x[:ROWS].detach(), y[:ROWS]
    own = {name: p.detach() for name, p in model.named_parameters()}
    outputs = _run(model, own | dict(model.named_buffers()), examples, 0).logits
    together = losses(loss, outputs, targets)
    for row in range(len(examples)):
        alone = losses(loss, outputs[row : row + 1], targets[row : row + 1])
        if _differ(alone, together[row : row + 1], COARSE):
            raise Mixing(
                "the loss of an example depends on the others of the batch: it must be a function of its own row"
            )


@contextmanager
def unchanged(model: nn.Module, names: frozenset[str]) -> Iterator[None]:
    """Afterwards the buffers of these names hold what they held before."""
    saved = []
    for name in names:
        path, _, own = name.rpartition(".")
        buffers = model.get_submodule(path)._buffers
        saved.append((buffers, own, buffers[own], buffers[own].clone()))
    try:
        yield
    finally:
        for buffers, own, buffer, values in saved:
            buffers[own] = buffer
            with torch.no_grad():
                buffer.copy_(values)
