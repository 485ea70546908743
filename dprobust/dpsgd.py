"""Private training without the workflow: batches, private steps for any optimizer of torch, and epsilon so far.

    private = PrivateTraining(model, torch.optim.Adam(model.parameters()), examples=len(x), batch_size=256, epochs=5,
                              clip=1.0, epsilon=2.0, delta=1e-5)
    for batch in private:
        private.step(x[batch], y[batch])
    private.epsilon(1e-5)

The loop is as short as it is on purpose: who draws the batches also divides by their expected size, adds the noise,
counts the steps and accounts for them, so that none of the four can be told something else than the others. A batch
that does not come from the loop, one that is used twice, and one that is left out are errors.

What a call cannot see stays with the caller: that example i of the data is row i of `x`; that one person is one
example; that inputs are not normalised by statistics of the private data; that nothing is chosen by results on them;
and that the parameters, or what is computed from them, are all that is published (not losses, norms or batch sizes).
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dprobust import checkpoints, privacy, seeds
from dprobust.accounting.adjacency import ADJACENCIES
from dprobust.engines import ENGINES, clipped_gradient_sum
from dprobust.errors import UserError
from dprobust.noise import Noise
from dprobust.objectives import Loss, cross_entropy
from dprobust.recipe import Training
from dprobust.samplers import batches

__all__ = ["ENGINES", "PrivateTraining", "clipped_gradient_sum", "cross_entropy"]


class PrivateTraining:
    """DP-SGD (Abadi et al. 2016), or any other optimizer on its noisy gradients.

    A step: of each example of a batch the gradient of the loss is clipped to C; their sum gets Gaussian noise of
    standard deviation sigma C and is divided by the expected batch size b, a public constant. That is the `.grad` with
    which the optimizer makes its step. What it does with it (momentum, Adam's moments, weight decay) is computed from
    what is private already, and costs nothing: DP-Adam is DP-SGD with `torch.optim.Adam`.

    Args:
        model: any module whose row i of outputs is a function of example i alone; it stays on its device, and
            is in training mode when a step is made.
        optimizer: of all parameters of the model that require a gradient and no others. Schedulers may be used with it.
        examples: number of training examples N, a public constant.
        batch_size: b, of `poisson` its expectation. An epoch has floor(N / b) steps.
        epochs: how many are meant to be trained; iteration ends after them.
        clip: C, the largest l2 norm that the gradient of an example keeps.
        sigma: noise multiplier, the standard deviation of the noise divided by C.
        epsilon, delta: in place of sigma, the noise that all epochs together may have.
        sampling: `poisson`, `truncated_poisson` (at most `batch_cap` examples), `balls_in_bins` or `shuffle`
            (`dprobust.recipe.Sampling`). What epsilon holds for differs: `adjacencies`.
        loss: outputs and targets -> losses (N,), each a function of its own row (`dprobust.objectives.Loss`).
        clip_function: `abadi` or `automatic` (`clipped_gradient_sum`).
        engine: key of `ENGINES`.
        batch_cap: of `truncated_poisson`; None: b + 6 sqrt(b).
        at_once: examples whose gradients are computed in one pass; larger batches are done in pieces (virtual batches),
            with the same sums up to round-off. None: all of a batch.
        seed: noise and batches are derived from it: for experiments that are to be repeated. None, as it should be for
            a model that is given away: they come from the operating system and cannot be drawn again.

    Raises:
        UserError: settings that exclude one another, a batch larger than the data, or an epsilon that no noise gives.
        ValueError: an optimizer of other parameters than the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        examples: int,
        batch_size: int,
        epochs: int,
        clip: float,
        sigma: float | None = None,
        epsilon: float | None = None,
        delta: float | None = None,
        sampling: str = "poisson",
        loss: Loss = cross_entropy,
        clip_function: str = "abadi",
        engine: str = "fused",
        batch_cap: int | None = None,
        at_once: int | None = None,
        seed: int | None = None,
    ) -> None:
        if (sigma is None) == (epsilon is None):
            raise UserError("PrivateTraining needs sigma or epsilon, and not both")
        if not 0 < batch_size <= examples:
            raise UserError(f"batch_size: {batch_size} must be from 1 to the number of examples, {examples}")
        if at_once is not None and at_once < 1:
            raise UserError(f"at_once: {at_once} must be at least 1")
        asked = {"sigma": sigma, "epsilon": epsilon, "delta": delta, "clip": clip, "clip_function": clip_function}
        asked |= {"sampling": sampling, "batch_size": batch_size, "batch_cap": batch_cap, "epochs": epochs}
        asked |= {"engine": engine, "randomness": "secret" if seed is None else "reproducible"}
        try:
            settings = Training(**asked)
        except ValidationError as error:
            told = error.errors()[0]
            raise UserError(": ".join(filter(None, [".".join(map(str, told["loc"])), told["msg"]]))) from None
        self.settings = privacy.resolve(settings, examples)
        """How it trains, sigma included."""
        self.model, self.optimizer, self.examples, self.at_once = model, optimizer, examples, at_once
        self.steps = 0
        """Steps made so far."""
        self._parameters = _parameters(model, optimizer)
        self._engine = ENGINES[engine](model, clip_function, loss)
        self._secret = seed is None
        told = [seed, json.dumps(self.settings.plain()), examples, model, optimizer, checkpoints.digest(_state(model))]
        self._begin("" if self._secret else hashlib.sha256("\n".join(map(str, told)).encode()).hexdigest()[:32])
        self._drawn: Tensor | None = None
        self._loop: object | None = None

    def _begin(self, stream: str) -> None:
        """Take noise and batches from a stream: two trainings that differ in anything share neither."""
        self._stream, self._epoch = stream, None
        self._generator = self._new_generator()
        std, device = self.settings.noise_std, next(iter(self._parameters.values())).device
        self._noise = Noise(std, ("dpsgd", stream), self._secret, device) if std else None

    @property
    def steps_per_epoch(self) -> int:
        return self.settings.steps_per_epoch(self.examples)

    @property
    def sigma(self) -> float:
        """Noise multiplier."""
        return self.settings.noise_multiplier

    @property
    def adjacencies(self) -> tuple[str, ...]:
        """What two neighbouring data sets are for the bounds of this sampler, the first being the default."""
        return ADJACENCIES[self.settings.sampling]

    def __len__(self) -> int:
        """Steps that are left."""
        return self.settings.epochs * self.steps_per_epoch - self.steps

    def __iter__(self) -> Iterator[Tensor]:
        """The batches that are left, each the indices of its examples, int64 on the CPU; some may be empty.

        `step` is to be called once with the examples of each, of an empty one, too: that a batch was empty must not
        show. A loop that was left can be begun again and goes on; the one before gives no more batches then.
        """
        self._used()
        self._loop = loop = object()
        while len(self) > 0:
            done = self.steps % self.steps_per_epoch
            if done == 0:
                if self._secret:  # in each epoch, so that a training that goes on is no other
                    self._generator = self._new_generator()
                self._epoch = self._generator.get_state()
            elif self._epoch is not None:  # what is left of an epoch that was begun
                self._generator.set_state(self._epoch)
            for batch in itertools.islice(batches(self.examples, self.settings, self._generator), done, None):
                self._drawn = batch
                yield batch
                self._used()
                if self._loop is not loop:  # it would give batches that are already used, and too many
                    raise RuntimeError("another loop over this training has begun, which gives the batches now")

    def _used(self) -> None:
        if self._drawn is not None:
            raise RuntimeError("the last batch was not used: call step once for each, of an empty one, too")

    def step(self, x: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor]) -> None:
        """One private step on the batch that the loop has just given.

        Args:
            x: inputs (n, ...) of its examples, in its order; or a list of tensors, which together are these, so that
                they need not be in memory together.
            y: targets (n, ...), likewise.

        Raises:
            RuntimeError: there is no batch that was not used yet, or the model is in evaluation mode.
            ValueError: not as many examples as the batch has, or a model or loss without per-example gradients.
        """
        if self._drawn is None:
            raise RuntimeError("there is no batch to make a step on: call step once for each batch of the loop")
        if not self.model.training:
            raise RuntimeError("the model is in evaluation mode, perhaps since a check: call model.train() first")
        pieces = list(self._pieces(x, y))
        if (n := sum(len(inputs) for inputs, _ in pieces)) != len(self._drawn):
            raise ValueError(f"the batch has {len(self._drawn)} examples, not {n}: a step is on all of them")
        sums: dict[str, Tensor] = {}
        for inputs, targets in pieces:
            found, _ = self._engine(inputs, targets, self.settings.clip)
            if found.keys() != self._parameters.keys():
                raise ValueError("other parameters require a gradient than when the training was begun")
            for name, value in found.items():
                sums[name] = sums[name].add_(value) if name in sums else value
        self._drawn = None
        noisy = self._noise.add(self.steps, sums) if self._noise else sums
        for name, parameter in self._parameters.items():
            parameter.grad = noisy[name].div_(self.settings.batch_size)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    def epsilon(self, delta: float, adjacency: str | None = None) -> float:
        """Epsilon of the steps made so far, by the tightest accountant for the sampler.

        It holds for the parameters after each of the steps together, and for one example. Of `balls_in_bins` and
        `shuffle` an epoch that was begun counts whole.

        Args:
            delta: in (0, 1).
            adjacency: one of `adjacencies`; None: the first.

        Returns:
            0 before the first step, infinite without noise.
        """
        adjacency = adjacency or self.adjacencies[0]
        if adjacency not in self.adjacencies:
            raise ValueError(f"adjacency must be one of {', '.join(self.adjacencies)}, not {adjacency!r}")
        if not 0 < delta < 1:
            raise ValueError(f"delta must be in (0, 1), not {delta}")
        if self.steps == 0 or not self.sigma:
            return math.inf if self.steps else 0.0
        told = self.settings.mechanism(self.examples)
        told |= {"steps": self.steps, "epochs": math.ceil(self.steps / self.steps_per_epoch)}
        rows = privacy.account(**told, deltas=[delta])
        return min(row["epsilon"] for row in rows if row["adjacency"] == adjacency)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later, beside the states of model and optimizer; between two steps.

        With a seed, training goes on as if it had not been interrupted. Without one it goes on with new noise and
        batches, and the state tells nothing of those before.
        """
        self._used()
        state = {"steps": self.steps, "settings": self.settings.plain(), "examples": self.examples}
        if self._secret:
            return state
        ended = self.steps % self.steps_per_epoch == 0
        return state | {"stream": self._stream, "epoch": self._generator.get_state() if ended else self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, in a training that has made no step.

        Raises:
            ValueError: it is of another training, or this one has begun; or, without a seed, it lies within an epoch of
                a sampler whose batches depend on one another.
        """
        if self.steps:
            raise ValueError("this training has made steps, which would not be counted: load into a new one")
        if state["settings"] != self.settings.plain() or state["examples"] != self.examples:
            raise ValueError("the state is of a training with other settings, whose steps had another privacy")
        within = state["steps"] % self.steps_per_epoch
        if self._secret and within and self.settings.sampling in ("balls_in_bins", "shuffle"):
            raise ValueError(
                f"the state lies within an epoch, whose batches ({self.settings.sampling}) are kept nowhere: "
                "save at the end of one"
            )
        self.steps = state["steps"]
        if not self._secret:
            self._begin(state["stream"])
            self._generator.set_state(state["epoch"])
            self._epoch = state["epoch"]

    def _new_generator(self) -> torch.Generator:
        return seeds.secret_generator() if self._secret else seeds.generator("dpsgd", self._stream, "sampling")

    def _pieces(self, x: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in [(x, y)] if isinstance(x, Tensor) else zip(x, y, strict=True):
            size = self.at_once or max(1, len(inputs))
            yield from zip(inputs.split(size), targets.split(size), strict=True)


def _parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """The trainable parameters by name; ValueError if the optimizer moves others, or not all, or computes gradients."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "LBFGS computes gradients by itself, which are neither clipped nor noisy: use another optimizer"
        )
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if {id(p) for group in optimizer.param_groups for p in group["params"]} != {id(p) for p in found.values()}:
        raise ValueError(
            "the optimizer must have all parameters of the model that require a gradient, and no others: build it of "
            "[p for p in model.parameters() if p.requires_grad]"
        )
    return found


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}
