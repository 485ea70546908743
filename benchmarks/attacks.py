"""Attacks and boundary distances: ours and other libraries' on the same network and images, on one CPU thread."""

import copy
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import foolbox
import torch
from torch import Tensor, nn

from benchmarks.data import test_images, trained_lenet
from benchmarks.harness import Spread, Table, Target, check, interleave, ratio, rows, timed
from dprobust import attacks, distances
from dprobust.inference import map_batches, predict

EPS, ALPHA, BATCH = 0.1, 0.01, 256
GRID = [0.01 * i for i in range(31)]
OURS, FOOLBOX = "ours", "Foolbox"
ROUND_OFF = 1e-6
MINUTES, MISSED = 15, 0.001
"""What the fast budget may take for 10,000 images, and the share of all images whose break it may miss."""

Attack = Callable[[Tensor, Tensor], Tensor]


def tables(quick: bool) -> Iterator[Table]:
    torch.set_num_threads(1)
    model = trained_lenet(1000 if quick else 20_000)
    n, rounds = (64, 2) if quick else (512, 5)
    yield pgd(model, *test_images(n), steps=40, rounds=rounds)
    yield fgsm_grid(model, *test_images(n), rounds=rounds)
    yield eq4(model, *test_images(n), rounds=rounds)
    yield deepfool(model, *test_images(n // 8), rounds=min(rounds, 3))
    yield auto_pgd(model, *test_images(n // 2), steps=20 if quick else 100, rounds=min(rounds, 3))
    networks = {"SGD": model, "DP-SGD": trained_lenet(1000 if quick else 20_000, private=True)}
    for name, network in networks.items():
        for eps in (0.1, 0.2):
            yield climbed(network, *test_images(n), name, eps, attacks.BUDGETS)


def pgd(model: nn.Module, x: Tensor, y: Tensor, steps: int, rounds: int) -> Table:
    contiguous = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    contestants: dict[str, Attack] = {
        OURS: lambda x, y: attacks.pgd(model, x, y, EPS, ALPHA, steps, batch_size=BATCH),
        FOOLBOX: _foolbox_pgd(model, steps),
        "Foolbox, contiguous network": _foolbox_pgd(contiguous, steps),
    }
    notes = ["All but the last contestant get the network in channels_last, which is faster for each."]
    if find_spec("torchattacks"):
        import torchattacks

        attack = torchattacks.PGD(model, EPS, ALPHA, steps, random_start=False)
        contestants["torchattacks"] = _batched(attack)
    if find_spec("torchattack"):
        import torchattack

        attack = torchattack.PGD(model, device=x.device, eps=EPS, steps=steps, alpha=ALPHA, random_start=False)
        contestants["torchattack"] = _batched(attack)
    expected = contestants[FOOLBOX](x, y)
    for name, attack in contestants.items():
        # A last bit may turn the sign of a gradient near zero, and a few more pixels after it.
        differ = (attack(x, y) - expected).abs() > ROUND_OFF
        pixels, images = differ.double().mean().item(), differ.flatten(1).any(1).sum().item()
        check(f"{name}: the share of pixels", [pixels], 0.05)
        notes.append(f"{name}: {images} of {len(x)} images, {pixels:.1e} of the pixels are not Foolbox'.")
    samples = interleave({k: timed(lambda f=f: f(x, y)) for k, f in contestants.items()}, rounds, warm_up=0)
    table = rows(samples, 10_000 / len(x), FOOLBOX)
    return Table(
        f"PGD, {steps} steps",
        f"s for 10,000 images (measured: {len(x)})",
        table,
        FOOLBOX,
        [Target("PGD throughput, ours / Foolbox", ratio(samples, FOOLBOX, OURS), 1.5, at_most=False)],
        notes,
    )


def _batched(attack: Attack) -> Attack:
    return lambda x, y: torch.cat([attack(*part) for part in zip(x.split(BATCH), y.split(BATCH), strict=True)])


def _foolbox_pgd(model: nn.Module, steps: int) -> Attack:
    peer = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=steps, random_start=False)
    return _batched(lambda x, y: attack.run(peer, x, foolbox.criteria.Misclassification(y), epsilon=EPS))


class Counted(nn.Module):
    """A network that counts the images it sees forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def fgsm_grid(model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> Table:
    """FGSM over a grid of eps: one gradient serves all of them."""
    counted = Counted(model)
    ours = attacks.fgsm_curve(counted, x, y, GRID)
    # Beside the grid: the forward pass of the gradient, and one image that the arguments are checked with.
    forwards, backwards = counted.forwards / len(x), counted.backwards / len(x)
    peer, attack = foolbox.PyTorchModel(model, bounds=(0, 1)), foolbox.attacks.LinfFastGradientAttack()

    def foolbox_grid() -> Tensor:
        parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([attack(peer, a, b, epsilons=GRID)[2] for a, b in parts], 1)

    check("FGSM against Foolbox", [(ours.correct != ~foolbox_grid().T).double().mean().item()], 0.001)
    contestants = {OURS: timed(lambda: attacks.fgsm_curve(model, x, y, GRID)), FOOLBOX: timed(foolbox_grid)}
    samples = interleave(contestants, rounds, warm_up=0)
    return Table(
        f"FGSM at {len(GRID)} values of eps",
        f"s for 10,000 images (measured: {len(x)})",
        rows(samples, 10_000 / len(x), FOOLBOX),
        FOOLBOX,
        [
            Target("FGSM grid, gradients an image (counted)", Spread.of([backwards]), 1),
            Target(
                "FGSM grid, forward passes an image beside the gradient's (counted)", Spread.of([forwards - 1]), 31.1
            ),
        ],
    )


def eq4(model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> Table:
    """Eq. 4 in both norms against all Jacobians by torch.func."""

    def jacobians() -> Tensor:
        one = torch.func.jacrev(lambda image: model(image[None])[0])

        def linf(x: Tensor, y: Tensor) -> tuple[Tensor]:
            logits, jacobian, true = model(x), torch.func.vmap(one)(x).flatten(2), y[:, None]
            gap = (logits - logits.gather(1, true)).abs()
            norm = (jacobian - jacobian[torch.arange(len(y)), y][:, None]).abs().sum(2)
            return ((gap / norm).scatter(1, true, torch.inf).amin(1),)

        with torch.no_grad():
            return torch.cat([linf(*part)[0] for part in zip(x.split(64), y.split(64), strict=True)])

    naive = "torch.func jacrev"
    ours = distances.boundary_distance(model, x, y, "linf")
    check("Eq. 4", ((ours - jacobians()).abs() / ours).tolist(), 1e-4)
    contestants = {OURS: timed(lambda: distances.boundary_distances(model, x, y)), naive: timed(jacobians)}
    samples = interleave(contestants, rounds, warm_up=0)
    title = "Distance by Eq. 4 (ours in both norms, torch.func in one)"
    return Table(
        title, f"s for 10,000 images (measured: {len(x)})", rows(samples, 10_000 / len(x), naive), reference=naive
    )


def deepfool(model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> Table:
    peer = foolbox.PyTorchModel(model, bounds=(-torch.inf, torch.inf))
    attack = foolbox.attacks.L2DeepFoolAttack(candidates=10)
    contestants: dict[str, Attack] = {
        OURS: lambda x, y: distances.deepfool(model, x, y, "l2").images,
        FOOLBOX: _batched(lambda x, y: attack.run(peer, x, foolbox.criteria.Misclassification(y))),
    }
    if find_spec("torchattacks"):
        import torchattacks

        contestants["torchattacks"] = torchattacks.DeepFool(model)
    found = {name: attack(x, y) for name, attack in contestants.items()}
    fooled = (map_batches(model, lambda a: (model(a).argmax(1),), BATCH, found[OURS])[0] != y).double().mean().item()
    check("our DeepFool leaves images right:", [1 - fooled], 0)
    lengths = {name: (images - x).flatten(1).norm(dim=1) for name, images in found.items()}
    right = lengths[OURS] > 0
    for name, length in lengths.items():
        # Each library has an overshoot of its own, and torchattacks keeps to [0, 1].
        check(name, (length / lengths[OURS] - 1)[right].abs().tolist(), 0.1)
    samples = interleave({k: timed(lambda f=f: f(x, y)) for k, f in contestants.items()}, rounds, warm_up=0)
    table = rows(samples, 1e3 / len(x), FOOLBOX)
    return Table("DeepFool, l2", f"ms an image (measured: {len(x)})", table, FOOLBOX)


def auto_pgd(model: nn.Module, x: Tensor, y: Tensor, steps: int, rounds: int) -> Table:
    """Auto-PGD along cross-entropy, one run: ours leaves an image alone once it is broken."""
    contestants: dict[str, Attack] = {OURS: lambda x, y: attacks.apgd(model, x, y, EPS, steps=steps).images}
    if find_spec("pyautoattack"):
        from pyautoattack.autopgd_base import APGDAttack

        official = APGDAttack(model, n_iter=steps, eps=EPS, n_restarts=1)
        contestants["pyautoattack"] = _batched(lambda x, y: official.perturb(x, y).detach())
    if find_spec("adv_lib"):
        for unused in ("visdom", "tqdm"):  # curves and progress
            if unused not in sys.modules and not find_spec(unused):
                sys.modules[unused] = stand_in(unused)
        from adv_lib.attacks import apgd

        contestants["adv-lib"] = _batched(
            lambda x, y: apgd(model, x, y, EPS, float("inf"), n_iter=steps, loss_function="ce").detach()
        )
    found = {name: predict(model, attack(x, y)) == y for name, attack in contestants.items()}
    notes = []
    for name, right in found.items():
        differ = (right != found[OURS]).double().mean().item()
        check(f"{name}: the share of images left", [differ], 0.02)
        notes.append(f"{name} leaves {right.sum().item()} of {len(x)} images right.")
    samples = interleave({k: timed(lambda f=f: f(x, y)) for k, f in contestants.items()}, rounds, warm_up=0)
    return Table(
        f"Auto-PGD, {steps} steps along cross-entropy, eps {EPS}",
        f"s for 10,000 images (measured: {len(x)})",
        rows(samples, 10_000 / len(x), OURS),
        OURS,
        notes=notes,
    )


def stand_in(name: str) -> types.ModuleType:
    """An empty module for one that is imported and not used."""
    module = types.ModuleType(name)
    module.__spec__, module.Visdom = ModuleSpec(name, None), None
    return module


def climbed(
    model: nn.Module, x: Tensor, y: Tensor, name: str, eps: float, budgets: Mapping[str, attacks.Budget]
) -> Table:
    """The whole ladder with each budget, once, and what each finds of the breaks of the first."""
    full, spent, found = next(iter(budgets)), {}, {}
    for budget, numbers in budgets.items():
        start = time.process_time()
        found[budget] = attacks.ladder(model, x, y, eps, budget=numbers)
        spent[budget] = [(time.process_time() - start) / 60 * 10_000 / len(x)]
    breaks = found[full].broken_by > 0
    notes = [
        f"Right without attack: {100 * found[full].accuracy[0]:.1f} %.",
        "A second climb has small batches on few images, which overstates its time for 10,000.",
    ]
    targets = []
    for budget, one in found.items():
        by = one.broken_by[breaks]
        shares = [((by > 0) & (by <= place)).double().mean().item() for place in range(1, len(one.rungs))]
        total = sum(one.seconds)
        notes.append(
            f"{budget}: {100 * one.accuracy[-1]:.1f} % left. Of the {int(breaks.sum())} breaks with budget {full}, "
            f"found in % after each rung (and its part of the time): {_told(one.rungs, shares, one.seconds, total)}."
        )
        if budget != full:
            missed = one.accuracy[-1] - found[full].accuracy[-1]
            about = f"Ladder, {name}, eps {eps}, budget {budget}"
            targets.append(Target(f"{about}, CPU time of 10,000 images", Spread.of(spent[budget]), MINUTES, unit="min"))
            targets.append(
                Target(f"{about}, accuracy left above {full}", Spread.of([100 * missed]), 100 * MISSED, unit="points")
            )
    return Table(
        f"Ladder of attacks, {name}, eps {eps}",
        f"CPU minutes for 10,000 images (measured: {len(x)})",
        rows(spent, 1, full),
        full,
        targets,
        notes,
    )


def _told(rungs: Sequence[str], shares: Sequence[float], seconds: Sequence[float], total: float) -> str:
    return ", ".join(
        f"{rung} {100 * share:.1f} ({100 * s / total:.0f})"
        for rung, share, s in zip(rungs[1:], shares, seconds[1:], strict=True)
    )
