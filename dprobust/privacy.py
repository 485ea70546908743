"""Privacy accounting for the sampler that was really used, for the neighbours that its bound is proven for.

| sampler | neighbours | accountants |
|---|---|---|
| poisson | adding or removing one example; replacing one | RDP, PRV, PLD; PLD |
| truncated_poisson | the same two | PLD |
| balls_in_bins | adding or removing one example | PLD |
| shuffle | replacing one example; its gradient becoming zero | Gaussian DP, an upper bound that is not tight |

Size of the training set, rate and number of steps count as known to everyone. The accountants themselves are in
`dprobust.accounting`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache

from scipy.optimize import brentq

from dprobust.accounting import poisson
from dprobust.accounting.adjacency import ADD_OR_REMOVE, ADJACENCIES, NONE, PHRASES, REPLACE, ZERO_OUT
from dprobust.accounting.bins import bins
from dprobust.accounting.gaussian import gaussian_epsilon
from dprobust.errors import UserError
from dprobust.recipe import Training

ACCOUNTANTS = {"rdp": poisson.rdp, "prv": poisson.prv, "pld": poisson.pld}
"""Of Poisson sampling, for adding or removing one example."""
PRECISION = 1e-4
"""How far above the smallest a noise multiplier that is looked for may be, relatively."""
LARGEST = 1e6
"""The largest noise multiplier that is looked for."""


def _check(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> None:
    if not noise_multiplier >= 0:
        raise ValueError(f"noise_multiplier must be at least 0, not {noise_multiplier}")
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must be in (0, 1], not {sample_rate}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, not {steps}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), not {delta}")


@cache
def epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float, accountant: str = "pld") -> float:
    """epsilon at `delta` of `steps` Poisson-subsampled Gaussian mechanisms, for adding or removing one example.

    Args:
        noise_multiplier: standard deviation of the noise divided by the clipping bound C.
        sample_rate: q, the probability that an example is in a batch: b / N.
        steps: number of noisy steps.
        delta: in (0, 1).
        accountant: "rdp", "prv" (tighter; an upper bound within 0.01, or within 0.1 % above 10) or "pld" (tightest).
            None is above RDP's, and all are upper bounds.

    Returns:
        epsilon; infinite without noise, 0 without steps.

    Raises:
        ValueError: an argument out of its range.
    """
    _check(noise_multiplier, sample_rate, steps, delta)
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant must be one of {', '.join(ACCOUNTANTS)}, not {accountant!r}")
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    # Renyi bounds fall below 0 at a delta near 1; (epsilon, delta)-DP is of epsilon from 0.
    return max(0.0, ACCOUNTANTS[accountant](noise_multiplier, sample_rate, steps, delta))


def shuffle_epsilon(noise_multiplier: float, epochs: int, delta: float, adjacency: str = REPLACE) -> float:
    """Upper bound on epsilon at `delta` for shuffled batches of fixed size.

    The order of the batches does not depend on the data and each example is in at most one batch an epoch, so an epoch
    is one Gaussian mechanism on that example and `epochs` of them are Gaussian DP (Dong, Roth, Su 2022). One example
    replaced by another moves the sum by up to 2 C, mu = 2 sqrt(epochs) / noise_multiplier; an example whose gradient
    becomes zero by up to C, half of that mu. There is no bound for adding or removing an example: it moves others to
    other batches, and more than a C changes.

    Args:
        noise_multiplier: standard deviation of the noise divided by C.
        epochs: passes over the data.
        delta: in (0, 1).
        adjacency: "replace one" or "zero out one".

    Raises:
        ValueError: an argument out of its range.
    """
    _check(noise_multiplier, 1.0, epochs, delta)
    if adjacency not in ADJACENCIES["shuffle"]:
        raise ValueError(f"adjacency must be one of {', '.join(ADJACENCIES['shuffle'])}, not {adjacency!r}")
    if epochs == 0:
        return 0.0
    moved = 2 if adjacency == REPLACE else 1
    mu = moved * math.sqrt(epochs) / noise_multiplier if noise_multiplier else math.inf
    return gaussian_epsilon(mu, delta)


@dataclass(frozen=True)
class Mechanism:
    """What accounting needs to know of a training, `dprobust.recipe.Training.mechanism`.

    Raises:
        ValueError: a sampler that is not known, or no cap and size for batches with a cap.
    """

    sampling: str
    """A sampler of `dprobust.samplers`."""
    noise_multiplier: float | None
    """Standard deviation of the noise divided by C; None without clipping."""
    sample_rate: float
    """The probability that an example is drawn into a batch (before any cap)."""
    steps: int
    """Noisy steps, over all epochs."""
    epochs: int
    """Passes over the data."""
    batch_cap: int | None = None
    """The largest batch, of truncated_poisson."""
    examples: int | None = None
    """Size of the training set, of truncated_poisson."""

    def __post_init__(self) -> None:
        if self.sampling not in ADJACENCIES:
            raise ValueError(f"sampling must be one of {', '.join(ADJACENCIES)}, not {self.sampling!r}")
        if self.sampling == "truncated_poisson" and (self.batch_cap is None or self.examples is None):
            raise ValueError("truncated_poisson needs batch_cap and examples")

    @property
    def told(self) -> str:
        """The sampler as it stands in a guarantee."""
        if self.sampling == "truncated_poisson":
            return f"Poisson sampling with at most {self.batch_cap} examples a batch"
        return SAMPLERS[self.sampling]


SAMPLERS = {
    "poisson": "Poisson sampling",
    "balls_in_bins": "balls-in-bins sampling (each example once an epoch, in a random batch)",
    "shuffle": (
        "an upper bound for shuffled batches of fixed size (one Gaussian mechanism an epoch); "
        "it is none for adding or removing an example, no tight accountant is known for this sampler, and Poisson "
        "accounting does not apply to it"
    ),
}


@dataclass(frozen=True)
class Bound:
    """An accountant of a sampler, for its neighbours: `epsilon(noise multiplier, mechanism, delta)`."""

    adjacency: str
    accountant: str
    epsilon: Callable[[float, Mechanism, float], float]


def _poisson(accountant: str) -> Callable[[float, Mechanism, float], float]:
    return lambda sigma, m, delta: epsilon(sigma, m.sample_rate, m.steps, delta, accountant)


@cache
def _pld(sigma: float, m: Mechanism, delta: float, adjacency: str) -> float:
    return poisson.pld(sigma, m.sample_rate, m.steps, delta, adjacency, m.batch_cap, m.examples)


@cache
def _bins(sigma: float, m: Mechanism, delta: float) -> float:
    return bins(sigma, round(1 / m.sample_rate), m.epochs, delta)


def _shuffle(adjacency: str) -> Callable[[float, Mechanism, float], float]:
    return lambda sigma, m, delta: shuffle_epsilon(sigma, m.epochs, delta, adjacency)


_REPLACE_PLD = Bound(REPLACE, "pld", lambda sigma, m, delta: _pld(sigma, m, delta, REPLACE))
BOUNDS = {
    "poisson": (*(Bound(ADD_OR_REMOVE, name, _poisson(name)) for name in ACCOUNTANTS), _REPLACE_PLD),
    "truncated_poisson": (
        Bound(ADD_OR_REMOVE, "pld", lambda sigma, m, delta: _pld(sigma, m, delta, ADD_OR_REMOVE)),
        _REPLACE_PLD,
    ),
    "balls_in_bins": (Bound(ADD_OR_REMOVE, "pld", _bins),),
    "shuffle": tuple(Bound(adjacency, "gdp", _shuffle(adjacency)) for adjacency in (REPLACE, ZERO_OUT)),
}
"""Sampler -> its bounds, by adjacency in the order of `ADJACENCIES`."""


def noise_multiplier(
    epsilon: float,
    delta: float,
    sampling: str,
    sample_rate: float,
    steps: int,
    epochs: int,
    batch_cap: int | None = None,
    examples: int | None = None,
) -> float:
    """The smallest noise multiplier whose epsilon, by the tightest accountant for the sampler, is at most `epsilon`.

    Epsilon is for the neighbours that head the privacy table: adding or removing one example, and for "shuffle"
    replacing one.

    Args:
        epsilon: wanted, above 0.
        delta: in (0, 1).
        sampling, sample_rate, steps, epochs, batch_cap, examples: see `Mechanism`.

    Returns:
        Standard deviation of the noise divided by C, rounded up to six significant digits and at most
        `PRECISION` above the smallest; 0 without steps.

    Raises:
        ValueError: an argument out of its range.
        UserError: an epsilon that no noise reaches, by this accountant.
    """
    _check(1.0, sample_rate, steps, delta)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite, not {epsilon}")
    m = Mechanism(sampling, None, sample_rate, steps, epochs, batch_cap, examples)
    if (epochs if sampling == "shuffle" else steps) == 0:
        return 0.0
    tightest = [bound for bound in BOUNDS[sampling] if bound.adjacency == ADJACENCIES[sampling][0]][-1]
    near = None
    if sampling != "shuffle":  # RDP of Poisson sampling is far cheaper, and its answer is near
        near = _root(lambda multiplier: _poisson("rdp")(multiplier, m, delta), epsilon, 1.0, 4.0)
    found = _root(lambda multiplier: tightest.epsilon(multiplier, m, delta), epsilon, near or 1.0, 1.1 if near else 4.0)
    if found is None:
        raise UserError(
            f"epsilon: {epsilon:g} at delta {delta:g} is out of reach of the accountant, however much noise there is; "
            "ask for more"
        )
    return found


def _root(accounted: Callable[[float], float], target: float, start: float, factor: float) -> float | None:
    """The smallest noise multiplier, up to `PRECISION`, where `accounted`, which falls, is at most `target`.

    Looks for it from `start` by steps of `factor`. None if it is above `LARGEST`.
    """
    low = high = start
    while accounted(high) > target:
        if high >= LARGEST:
            return None
        low, high, factor = high, min(high * factor, LARGEST), factor**1.5
    while accounted(low) <= target:
        low, high, factor = low / factor, low, factor**1.5

    def excess(log_multiplier: float) -> float:  # nearly a straight line
        return math.log(max(accounted(math.exp(log_multiplier)), 1e-300) / target)

    root = brentq(excess, math.log(low), math.log(high), xtol=PRECISION / 4, rtol=1e-12)
    found = _round_up(math.exp(root + PRECISION / 4))
    while accounted(found) > target:  # the accountant itself is no smoother than its own error
        found = _round_up(found * (1 + PRECISION / 4))
    return found


def _round_up(value: float) -> float:
    """To six significant digits."""
    unit = Decimal(1).scaleb(Decimal(value).adjusted() - 5)
    return float(Decimal(value).quantize(unit, ROUND_CEILING))


def account(
    sampling: str,
    noise_multiplier: float | None,
    sample_rate: float,
    steps: int,
    epochs: int,
    deltas: Iterable[float],
    batch_cap: int | None = None,
    examples: int | None = None,
) -> list[dict[str, float | str]]:
    """What is guaranteed to hold for a training run, as rows of delta, adjacency, accountant, epsilon, guarantee.

    Args:
        sampling, noise_multiplier, sample_rate, steps, epochs, batch_cap, examples: see `Mechanism`. Without clipping
            (None) and without noise (0) nothing is guaranteed.
        deltas: where epsilon is wanted.

    Returns:
        By delta and adjacency; the first adjacency is the one that heads the privacy table.
    """
    m = Mechanism(sampling, noise_multiplier, sample_rate, steps, epochs, batch_cap, examples)
    if not noise_multiplier:
        guarantee = (
            "none: gradients are not clipped, so no noise would hide an example whose gradient is large"
            if noise_multiplier is None
            else "none: gradients are clipped, but no noise is added"
        )
        nothing = {"adjacency": NONE, "accountant": "none", "epsilon": math.inf, "guarantee": guarantee}
        return [{"delta": delta} | nothing for delta in deltas]
    return [
        {
            "delta": delta,
            "adjacency": bound.adjacency,
            "accountant": bound.accountant,
            "epsilon": bound.epsilon(noise_multiplier, m, delta) if steps else 0.0,
            "guarantee": f"(epsilon, delta)-DP for {PHRASES[bound.adjacency]}, {m.told}",
        }
        for delta in deltas
        for bound in BOUNDS[sampling]
    ]


def resolve(settings: Training, n: int) -> Training:
    """The settings with `epsilon` turned into the sigma that gives it (`noise_multiplier`).

    Args:
        settings: as `dprobust.training.train` takes them, but for an `epsilon`; without one they come back as they are.
        n: size of the training set.

    Raises:
        UserError: no noise gives that epsilon, or a batch is larger than the training set.
    """
    if settings.epsilon is None:
        return settings
    if settings.batch_size > n:
        raise UserError(f"batch_size {settings.batch_size} is larger than the training set of {n}; use a smaller one")
    asked = settings.model_copy(update={"epsilon": None}).mechanism(n)
    del asked["noise_multiplier"]
    multiplier = noise_multiplier(settings.epsilon, settings.delta, **asked)
    sigma = multiplier if settings.noise == "sigma*clip" else multiplier * settings.clip
    return Training(**(settings.model_dump() | {"sigma": sigma, "epsilon": None, "delta": None}))
