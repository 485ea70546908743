"""How to train: the settings of SGD and of DP-SGD (Algorithm 1 of the paper). Needs no torch."""

import math
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import Field, model_validator

from dprobust.settings import Count, Fraction, NonNegative, Positive, Probability, Settings, Unique, fault

RANDOMNESS = {
    "reproducible": (
        "noise and batches are derived from the seed and the settings: whoever knows both draws them again and "
        "subtracts the noise. Right for experiments; for a model that is given away nothing is guaranteed"
    ),
    "secret": (
        "noise (AES-128 in counter mode) and batches come from the operating system's entropy, which is kept nowhere: "
        "neither can be drawn again, and no byte of this training is reproducible"
    ),
}
"""What each choice of `Training.randomness` means, as records say it."""

COUPLED = (
    "trainings of one group and seed share start, batches and noise draws on purpose: each epsilon holds for its model "
    "alone, not for several of them together, since who has two subtracts the noise"
)
"""What `Training.coupled` does to privacy, as records and reports say it."""

Randomness = Literal["reproducible", "secret"]
Engine = Literal["fused", "bfloat16", "ghost", "hooks", "functional"]
"""How per-example gradients are clipped: `dprobust.engines`."""
Sampling = Literal["poisson", "truncated_poisson", "balls_in_bins", "shuffle"]
"""How batches are drawn: `dprobust.samplers`."""
ClipFunction = Literal["abadi", "automatic"]
"""Keys of `dprobust.clipping.CLIP_FUNCTIONS`."""


ALIKE = ("epochs", "batch_size", "sampling", "batch_cap", "clip_function")
"""Settings in which trainings side by side must agree (`dprobust.together`): the shape of a step, and what it does."""


class Stop(Settings):
    """Stop where an accuracy is reached on examples held out of the training set (never on test images)."""

    accuracy: Annotated[float, Gt(0), Lt(1)] | None = None
    """Stop at the first check with at least this accuracy, 0 to 1."""
    accuracy_of: Annotated[str, MinLen(1)] | None = None
    """In place of accuracy: the name, as in paths, of another run of the study, for example dpsgd_sigma=1.3_clip=1.0;
    the accuracy to reach is the one that its model of the same seed ends with on the test images."""
    holdout: Count = 5000
    """Training examples held out for the checks, drawn at random; they are not trained on."""
    every: Count = 25
    """Steps between two checks, counted over all epochs."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.accuracy is None) == (self.accuracy_of is None):
            raise fault("say what to stop at, by one of accuracy and accuracy_of")
        return self


class Common(Settings):
    """Settings of a training that SGD and DP-SGD share."""

    epochs: Count = 50
    """Passes over the training set, each of floor(N / batch_size) steps."""
    batch_size: Count = 256
    """Batch size b; its expectation with Poisson sampling."""
    lr: Positive = 0.05
    """Learning rate; with a schedule its peak."""
    momentum: Fraction = 0.0
    """Momentum of the (noisy) gradients; 0 is the paper's plain step."""
    nesterov: bool = False
    """Whether momentum is Nesterov's."""
    weight_decay: NonNegative = 0.0
    """Factor of the parameters in the gradient (l2 regularisation)."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    """Learning rate over the steps - constant, or linear from 0 to lr in the first fifth and back to 0 along a
    cosine."""
    augment: Annotated[list[Literal["flip", "crop"]], Unique] = []
    """Random changes of each image in each step - flip it left to right, crop a window of the image padded by 4 pixels.
    Heads on frozen features can flip only."""
    sampling: Sampling = "shuffle"
    """poisson takes each example into each batch with probability batch_size / N, independently; truncated_poisson
    keeps at random batch_cap of larger batches; balls_in_bins puts each example into one batch of the epoch, drawn at
    random; shuffle takes a new order each epoch and batches of exactly batch_size, the incomplete last one left out
    (the paper's Algorithm 1). For the first three there are tight accountants, for shuffle a loose bound."""


class Sgd(Common):
    """Defaults of the runs of algorithm `sgd`."""

    batch_cap: Count | None = None
    """Largest batch of truncated_poisson (the other samplers ignore it), at least batch_size; null: b + 6 sqrt(b),
    rounded up, which is hardly ever reached."""


class Dpsgd(Common):
    """Defaults of the runs of algorithm `dpsgd`."""

    sampling: Sampling = "poisson"
    """As for sgd; the default is what the accountants of other projects assume."""
    batch_cap: Count | None = None
    """As for sgd."""
    engine: Engine = "fused"
    """How the sum of the clipped per-example gradients is computed. fused, ghost and hooks (Opacus') and functional
    (torch.func's) give the same sum, fused the soonest. bfloat16 computes with 8 bits of mantissa: nearby gradients,
    with the same bound on what one example adds and so with the same epsilon; the fastest where the CPU has
    instructions for it (AVX-512 BF16, for example), slow elsewhere."""
    clip_function: ClipFunction = "abadi"
    """What becomes of a gradient of norm n - abadi divides it by max(1, n / C), the paper's rule; automatic multiplies
    it by C / (n + 0.01), so that short gradients are made longer and all count alike (AUTO-S of Bu et al. 2022). None
    is longer than C, and epsilon is the same."""
    randomness: Randomness = "reproducible"
    """Of noise and batches - reproducible derives them from the seed and the settings, so whoever knows both can
    subtract the noise: for experiments. secret takes them from the operating system and keeps nothing to draw them
    again: for a model that is given away; trained again it is another."""


class Pretraining(Common):
    """Settings of SGD on the public dataset; batches are shuffled."""

    nesterov: bool = True
    """Whether momentum is Nesterov's."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """As for sgd."""
    augment: Annotated[list[Literal["flip", "crop"]], Unique] = ["flip", "crop"]
    """As for sgd."""
    sampling: Literal["shuffle"] = "shuffle"
    """Batches are shuffled."""
    precision: Literal["float32", "auto"] = "auto"
    """Of forward and backward pass - auto is bfloat16 where the device has instructions for it (a CPU with AVX-512
    BF16, for example), which is faster. Parameters are float32 throughout."""


class Training(Common):
    """One training, whole: what `dprobust.training.train` takes.

    With `clip` the gradient of each example is clipped; with `sigma` there is noise on their sum; with both it is
    DP-SGD. Without either it is SGD.
    """

    sigma: NonNegative | None = None
    """Noise parameter sigma; null: no noise."""
    epsilon: Positive | None = None
    """In place of sigma: the noise that gives this epsilon at `delta`, by the accountant for the sampler."""
    delta: Probability | None = None
    """Delta of `epsilon`."""
    clip: Positive | None = None
    """C, the bound on the l2 norm of an example's gradient; null: no clipping."""
    noise: Literal["sigma*clip", "sigma"] = "sigma*clip"
    """Standard deviation of the noise on the sum of the gradients - sigma*clip as in Algorithm 1, or sigma (Fig 3c, and
    noise without clipping)."""
    batch_cap: Count | None = None
    """As for sgd."""
    engine: Engine = "fused"
    """As for dpsgd."""
    clip_function: ClipFunction = "abadi"
    """As for dpsgd."""
    randomness: Randomness = "reproducible"
    """As for dpsgd."""
    precision: Literal["float32", "auto"] = "float32"
    """As for pretraining; for trainings without clipping only."""
    mislabelled: Annotated[int, Ge(0)] = 0
    """Canaries for membership inference - twice as many training examples, drawn at random, get a wrong class drawn at
    random; half of them are trained on like that, the other half are left out."""
    stop: Stop | None = None
    """Stop where an accuracy is reached; null: train all epochs."""
    coupled: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")] | None = None
    """Name of a group of trainings that share start, batches and noise draws on purpose, seed by seed, so that they
    differ in what is set and nothing else; epsilon then holds for each model alone, not for several of them. Null: a
    training shares nothing."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.sigma is not None and self.epsilon is not None:
            raise fault("sigma and epsilon exclude one another: one of them says how much noise there is")
        if self.epsilon is not None and (self.delta is None or self.clip is None):
            raise fault("epsilon needs delta and clip")
        if self.clip is None and self.sigma is not None and self.noise != "sigma":
            raise fault("noise without clipping has no C: noise must be sigma")
        if self.stop and self.private:
            raise fault("a training with noise cannot stop by the accuracy it reaches: that would not be private")
        if self.coupled and self.randomness == "secret":
            raise fault("coupled: secret randomness cannot be shared; use randomness reproducible")
        if self.clip is not None and self.precision != "float32":
            raise fault("clipping needs precision float32")
        if self.batch_cap is not None and self.batch_cap < self.batch_size:
            raise fault(f"batch_cap: {self.batch_cap} is less than batch_size {self.batch_size}; use a larger cap")
        return self

    @property
    def private(self) -> bool:
        """Whether there is noise on a clipped sum."""
        return self.clip is not None and (self.epsilon is not None or bool(self.sigma))

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on the sum of the gradients of a batch.

        Raises:
            ValueError: `epsilon` is not yet turned into sigma.
        """
        return self._sigma * (self.clip if self.clip is not None and self.noise == "sigma*clip" else 1.0)

    @property
    def noise_multiplier(self) -> float | None:
        """Standard deviation of the noise divided by C: what privacy depends on; None without clipping.

        Raises:
            ValueError: `epsilon` is not yet turned into sigma.
        """
        if self.clip is None:
            return None
        return self._sigma if self.noise == "sigma*clip" else self._sigma / self.clip

    @property
    def _sigma(self) -> float:
        if self.epsilon is not None:  # else it would be trained without noise
            raise ValueError("epsilon is not turned into sigma yet: dprobust.privacy.resolve does so")
        return self.sigma or 0.0

    @property
    def alone(self) -> str:
        """Settings by which it cannot be one of several trainings side by side, in words; empty if it can."""
        asked = {"stop": self.stop, "augment": self.augment, "mislabelled": self.mislabelled}
        asked |= {"precision": self.precision != "float32", "randomness": self.randomness == "secret"}
        asked |= {"engine": self.clip is not None and self.engine == "bfloat16"}
        return ", ".join(name for name, value in asked.items() if value)

    def trained_on(self, n: int) -> int:
        """How many of `n` training examples are trained on: all but the mislabelled ones that are left out and those
        held out for `stop`."""
        return n - self.mislabelled - (self.stop.holdout if self.stop else 0)

    def steps_per_epoch(self, n: int) -> int:
        """Steps in an epoch over the `n` examples trained on, the same for all ways of sampling."""
        return n // self.batch_size

    @property
    def cap(self) -> int:
        """The largest batch of truncated_poisson."""
        return self.batch_cap or math.ceil(self.batch_size + 6 * math.sqrt(self.batch_size))

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0 to steps - 1."""
        if self.schedule == "constant":
            return self.lr
        done, rise = (step + 0.5) / steps, 0.2
        return self.lr * (done / rise if done < rise else (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2)

    def mechanism(self, n: int) -> dict[str, Any]:
        """What privacy accounting needs to know of a training (`dprobust.privacy.account`).

        Args:
            n: number of examples that are trained on (`trained_on`).

        Raises:
            ValueError: `epsilon` is not yet turned into sigma.
        """
        steps = self.steps_per_epoch(n)
        told = {
            "sampling": self.sampling,
            "noise_multiplier": self.noise_multiplier,
            # Of balls in bins there are `steps` equal chances, and b need not divide n.
            "sample_rate": 1 / steps if self.sampling == "balls_in_bins" else self.batch_size / n,
            "steps": self.epochs * steps,
            "epochs": self.epochs,
        }
        return told | ({"batch_cap": self.cap, "examples": n} if self.sampling == "truncated_poisson" else {})


class Statement(Settings):
    """Privacy of given weights, as their maker states it."""

    epsilon: Annotated[float, Ge(0)]
    """Epsilon."""
    delta: Probability = Field(default=1e-5)
    """Delta."""
