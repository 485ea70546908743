"""Is what an attack leaves robustness? A check of any attack on any classifier, for masked gradients and slips.

The checks are symptoms from Athalye et al. (2018, arXiv 1802.00420), Carlini et al. (2019, arXiv 1902.06705) and
Zimmermann et al. (2022, arXiv 2206.13991). Each is a number that is small where all is well, and a threshold; docs/
attack-check.md gives the reasons. That nothing is flagged proves nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dprobust.attacks.balls import clip
from dprobust.attacks.gradient_sign import fgsm, pgd
from dprobust.attacks.losses import LOSSES
from dprobust.attacks.squares import square
from dprobust.inference import check_choice, check_count, check_images, check_size, input_gradient, map_batches
from dprobust.seeds import generator

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
"""Adversarial images (N, C, H, W) of a model, images (N, C, H, W) in [0, 1], labels (N,) and eps, in the linf ball."""

STEPS = 40
INNER = 64
"""Points inside a ball that a planted one is told from."""
RANDOM_DRAWS = 3
BATCH = 256

THRESHOLDS = {
    "p_is_1": 0.05,
    "wrong_direction": 0.05,
    "zero_gradient": 0.05,
    "softmax_output": 0.5,
    "one_step": 0.03,
    "smaller_ball": 0.03,
    "left_at_0.5": 0.1,
    "left_at_1": 0.05,
    "loss_not_rising": 0.1,
    "unreached": 0.05,
    "out_of_bounds": 1e-5,
    "other_loss": 0.2,
    "restarts": 0.1,
    "black_box": 0.1,
    "transfer": 0.1,
    "planted_missed": 0.2,
    "random_signs": 0.5,
    "not_deterministic": 0.0,
    "training_mode": 0.0,
}
"""Check -> the largest number that passes."""

WHY = {
    "p_is_1": "share of images whose softmax of the true class is 1 in float32: cross-entropy lost its gradient",
    "wrong_direction": "share of images where cross-entropy's gradient has another sign than its stable form's in at "
    "least a quarter of the pixels",
    "zero_gradient": "share of images whose gradient is 0 everywhere or not finite: the attack cannot move",
    "softmax_output": "share of images whose outputs are probabilities: a loss that expects logits has faded gradients",
    "one_step": "accuracy left less what one step (FGSM) leaves: more steps must not do worse",
    "smaller_ball": "accuracy left at eps less that at eps / 2: the larger ball holds the smaller",
    "left_at_0.5": "accuracy left at eps 0.5, where every image can be made grey",
    "left_at_1": "accuracy left at eps 1, where every image can become any other",
    "loss_not_rising": "share of images whose loss does not grow in the course of the attack",
    "unreached": "1 - largest change / eps, median of the images left: an attack that stays inside tests a smaller eps",
    "out_of_bounds": "how far images leave the ball or [0, 1]: their attack is not one of this eps",
    "other_loss": "share of images that it leaves and the same steps along the margin break",
    "restarts": "share of images that it leaves and random starts break: the start decides, the loss is rugged",
    "black_box": "share of images that it leaves and Square Attack breaks, which sees no gradient",
    "transfer": "share of images that it leaves and those made for other models break",
    "planted_missed": "share of adversarial points planted in the ball, where random search fails, that are not found",
    "random_signs": "rise of the margin by random signs of size eps as a share of the attack's: the gradient is worth "
    "no more than chance",
    "not_deterministic": "share of images whose outputs differ in two equal passes: a random gradient misleads",
    "training_mode": "share of the attack's passes in training mode, where the outputs differ by mode; or 1 if the "
    "attack changes the model",
}


class Finding(NamedTuple):
    """Outcome of a check."""

    name: str
    """A key of `THRESHOLDS`."""
    value: float
    """Small where all is well; nan where there was nothing to test."""
    threshold: float
    flagged: bool
    """The value is above the threshold."""
    why: str
    """What the number is, and why it matters."""


def standard_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    loss: str = "ce",
    start: torch.Generator | None = None,
) -> Tensor:
    """PGD of 40 steps, of 0.01 as in the paper or, for larger balls, of 2.5 eps / 40; from the image or, given a
    generator, from random points. Arguments and errors as in `pgd`."""
    return pgd(model, x, y, eps, max(0.01, 2.5 * eps / STEPS), STEPS, loss, start is not None, start, BATCH)


def check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    attack: Attack = standard_pgd,
    others: Sequence[nn.Module] = (),
    loss: str = "ce",
    queries: int = 500,
    planted: int = 10,
    seed: int = 0,
) -> list[Finding]:
    """Check an attack on a model; a finding for each check, in the order of `THRESHOLDS`.

    Shares are of the images that the model has right without attack, in evaluation mode. The attack meets the model in
    the mode it is in, inside a module that watches its passes; the model comes back as it was.

    Args:
        model: maps float images (N, C, H, W) in [0, 1] to logits (N, K), K >= 2.
        x: float (N, C, H, W) in [0, 1]; 100 images do. y: int64 (N,).
        eps: radius of the linf ball, > 0, in units of the pixel range.
        attack: from any library, as a callable.
        others: models for the same images whose adversarial images are tried; without any there is no `transfer`.
        loss: the one of `LOSSES` that the attack follows or is nearest to; the checks of round-off, `p_is_1` and
            `wrong_direction`, are those of "ce".
        queries: of Square Attack. planted: images with a planted point, each attacked by itself.
        seed: of everything drawn here; PyTorch's own generator is seeded by it for the attack, and set back after.

    Raises:
        ValueError: arguments that do not fit, a model that has no image right, an attack that returns other shapes.
    """
    check_images(model, x, y)
    check_size("eps", eps)
    if eps == 0:
        raise ValueError("eps must be above 0, found 0")
    check_choice("loss", loss, LOSSES)
    check_count("queries", queries)
    check_count("planted", planted)
    right = _predicted(model, x) == y
    if not right.any():
        raise ValueError("the model has none of the images right: there is nothing to attack")
    x, y = x[right], y[right]
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        numbers = _numbers(model, x, y, eps, attack, others, loss, queries, planted, seed)
    return [
        Finding(name, numbers[name], limit, numbers[name] > limit, WHY[name])
        for name, limit in THRESHOLDS.items()
        if name in numbers
    ]


def _numbers(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    attack: Attack,
    others: Sequence[nn.Module],
    loss: str,
    queries: int,
    planted: int,
    seed: int,
) -> dict[str, float]:
    numbers = _of_gradients(model, x, y, loss)
    outputs, again = _logits(model, x), _logits(model, x)
    numbers["softmax_output"] = _share((outputs.amin(1) >= 0) & ((outputs.sum(1) - 1).abs() < 1e-4))
    numbers["not_deterministic"] = _share(((outputs - again).abs() > 1e-5 * outputs.abs().amax()).any(1))

    state = {name: value.clone() for name, value in model.state_dict().items()}
    watch = Watch(model, x, y, loss)
    images = _attacked(attack, watch, x, y, eps)
    changed = any(not torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.load_state_dict(state)
    numbers["training_mode"] = 1.0 if changed else watch.in_training() * _modes_differ(model, x, state)
    left = _predicted(model, images) == y

    def found(adversarial: Tensor) -> float:
        """Share of all images: broken by these, left by the attack."""
        return _share(left & (_predicted(model, adversarial) != y))

    def accuracy(radius: float) -> float:
        value = _share(_predicted(model, _attacked(attack, model, x, y, radius)) == y)
        model.load_state_dict(state)
        return value

    change = (images - x).abs().flatten(1).amax(1)
    outside = torch.stack([change.max() - eps, -images.amin(), images.amax() - 1])
    numbers["out_of_bounds"] = max(outside.max().item(), 0.0)
    numbers["unreached"] = max(1 - change[left].median().item() / eps, 0.0) if left.any() else math.nan
    numbers["one_step"] = _share(left) - _share(_predicted(model, fgsm(model, x, y, eps, loss)) == y)
    numbers["smaller_ball"] = _share(left) - accuracy(eps / 2)
    numbers["left_at_0.5"], numbers["left_at_1"] = accuracy(0.5), accuracy(1.0)
    numbers["loss_not_rising"] = watch.not_rising(_loss(model, images, y, loss) > _loss(model, x, y, loss))
    numbers["other_loss"] = found(standard_pgd(model, x, y, eps, "margin"))
    numbers["restarts"] = found(standard_pgd(model, x, y, eps, loss, generator(seed, "check", "start")))
    numbers["black_box"] = found(square(model, x, y, eps, queries=queries, seed=seed).images)
    if others:
        made = torch.stack([_predicted(model, _attacked(attack, other, x, y, eps)) != y for other in others])
        numbers["transfer"] = _share(left & made.any(0))
    numbers["random_signs"] = _random_signs(model, x, y, eps, images, seed)
    numbers["planted_missed"] = _planted_missed(model, x[:planted], eps, attack, seed)
    model.load_state_dict(state)
    return numbers


class Watch(nn.Module):
    """A model that notes the mode of each pass, and the loss of passes of all images at once."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, loss: str) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._like, self._y, self._loss = x.shape, y, LOSSES[loss]
        self.modes: list[bool] = []
        self.losses: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(any(getattr(module, "training", False) for module in self.model.modules()))
        logits = self.model(x)
        if x.shape == self._like:
            self.losses.append(self._loss(logits.detach(), self._y.to(logits.device)))
        return logits

    def in_training(self) -> float:
        """Share of the passes that were in training mode."""
        return sum(self.modes) / len(self.modes) if self.modes else 0.0

    def not_rising(self, ends_higher: Tensor) -> float:
        """Share of images whose loss is not higher in the second half of the attack than in the first; of an attack
        whose passes do not tell, not higher at its end than at the image."""
        if len(self.losses) < 4:
            return _share(~ends_higher)
        first, second = torch.stack(self.losses).tensor_split(2)
        return _share(second.mean(0) <= first.mean(0))


class Planted(nn.Module):
    """Two classes, told by a linear function of a model's outputs: 1 beyond a threshold."""

    def __init__(self, model: nn.Module, weight: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("threshold", threshold, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        beyond = self.model(x) @ self.weight - self.threshold
        return torch.stack([-beyond, beyond], 1)


def _planted_missed(model: nn.Module, x: Tensor, eps: float, attack: Attack, seed: int) -> float:
    """The binarisation test of Zimmermann et al. on the outputs: a point on the ball's surface is the only one of its
    class among points drawn within, and the attack must find one of that class. nan where none can be told apart."""
    draws, tried, missed = generator(seed, "check", "planted"), 0, 0
    for image in x.split(1):
        signs = torch.randint(0, 2, (INNER + 1, *image.shape[1:]), generator=draws) * 2.0 - 1
        size = torch.full((INNER + 1, 1, 1, 1), eps)
        size[1:] *= 0.75 * torch.rand(INNER, 1, 1, 1, generator=draws)
        points = (image + (size * signs).to(image)).clamp(0, 1)
        outputs = _logits(model, points).double()
        inner = outputs[1:] - outputs[1:].mean(0)
        spread = inner.T @ inner / INNER
        ridge = 1e-3 * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
        away = outputs[0] - outputs[1:].mean(0)
        if not (spread.isfinite().all() and ridge.amax() > 0 and away.any()):
            continue
        weight = torch.linalg.solve(spread + ridge, away)
        scores = outputs @ weight
        highest = scores[1:].max()
        if scores[0] <= highest:
            continue
        # At the planted point the logits are 1 and -1: nothing saturates.
        scale = 2 / (scores[0] - highest)
        model_of_two = Planted(model, (weight * scale).to(image), ((scores[0] + highest) / 2 * scale).to(image))
        image = image.repeat(2, 1, 1, 1)  # some layers refuse a single image in training mode
        y = torch.zeros(2, dtype=torch.int64, device=image.device)
        if (_predicted(model_of_two, image) == 1).any():
            continue
        tried += 1
        missed += (_predicted(model_of_two, _attacked(attack, model_of_two, image, y, eps)) == 0).all().item()
    return missed / tried if tried else math.nan


def _of_gradients(model: nn.Module, x: Tensor, y: Tensor, loss: str) -> dict[str, float]:
    def batch(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        gradient, logits = input_gradient(model, LOSSES[loss], x, y)
        gradient = gradient.flatten(1)
        dead = (gradient == 0).all(1) | ~gradient.isfinite().all(1)
        stable = input_gradient(model, LOSSES["ce_stable"], x, y)[0].flatten(1)
        differs = ((gradient.sign() != stable.sign()) & (stable != 0)).double().sum(1)
        moving = (stable != 0).sum(1).clamp_min(1)
        certain = logits.softmax(1).gather(1, y[:, None])[:, 0] == 1
        return dead, differs / moving >= 0.25, certain

    dead, wrong, certain = map_batches(model, batch, BATCH, x, y)
    numbers = {"zero_gradient": _share(dead)}
    if loss == "ce":
        numbers |= {"p_is_1": _share(certain), "wrong_direction": _share(wrong)}
    return numbers


def _random_signs(model: nn.Module, x: Tensor, y: Tensor, eps: float, images: Tensor, seed: int) -> float:
    """The best of a few draws, an image, against the attack; 1 where the attack raises nothing."""
    draws, before = generator(seed, "check", "signs"), _loss(model, x, y, "margin")
    rises = []
    for _ in range(RANDOM_DRAWS):
        signs = (torch.randint(0, 2, x.shape, generator=draws) * 2.0 - 1).to(x)
        rises.append(_loss(model, clip(x + eps * signs, x, eps), y, "margin") - before)
    by_attack = (_loss(model, images, y, "margin") - before).median().item()
    by_chance = torch.stack(rises).amax(0).median().item()
    return max(by_chance, 0.0) / by_attack if by_attack > 0 else 1.0


def _modes_differ(model: nn.Module, x: Tensor, state: dict[str, Tensor]) -> bool:
    training = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    at_ease = _logits(model, x)
    for module, _ in training:
        module.training = True
    try:
        with torch.no_grad():
            differ = not torch.allclose(model(x), at_ease, rtol=1e-4, atol=1e-5)
    finally:
        for module, mode in training:
            module.training = mode
        model.load_state_dict(state)
    return differ


def _attacked(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    # An attack may leave the model in another mode.
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    images = attack(model, x.clone(), y.clone(), eps)
    for module, mode in modes:
        module.training = mode
    if not isinstance(images, Tensor) or images.shape != x.shape:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"the attack must return images of shape {tuple(x.shape)}, found {found}")
    return images.detach().to(x)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return map_batches(model, lambda images: (model(images),), BATCH, x)[0]


def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    return _logits(model, x).argmax(1)


def _loss(model: nn.Module, x: Tensor, y: Tensor, loss: str) -> Tensor:
    return LOSSES[loss](_logits(model, x), y)


def _share(values: Tensor) -> float:
    return values.double().mean().item()
