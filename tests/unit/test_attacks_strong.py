"""Auto-PGD, Square Attack and the ladder. Oracles: the authors' own code (pyautoattack), adv-lib's APGD, closed forms
of linear models. Where a library is missing its tests are skipped: pip install --no-deps pyautoattack adv-lib."""

import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import nn

from dprobust.attacks import (
    BUDGETS,
    LOSSES,
    RUNGS,
    Budget,
    Found,
    apgd,
    apgd_targeted,
    ladder,
    pgd_iterations,
    robust_accuracy,
    rungs,
    square,
)
from dprobust.attacks.autopgd import climb
from dprobust.attacks.balls import Ball
from dprobust.attacks.losses import OBJECTIVES, dlr_to, margin_to
from dprobust.attacks.search import Draws
from dprobust.attacks.squares import _share
from dprobust.inference import at_rest, predict
from dprobust.seeds import derive

ORACLE_NORMS = {"linf": "Linf", "l2": "L2"}
FEW = Budget(pgd_steps=10, pgd_restarts=2, classes=4, apgd_steps=20, square_queries=100)
RADII = {"linf": 0.06, "l2": 0.4}
"""At which the trained network keeps some of its images."""


class Scale(nn.Module):
    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


def network(classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )


def samples(classes, n, seed):
    """Noise over one of `classes` patterns."""
    patterns = torch.rand(classes, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    return 0.45 * patterns[y] + 0.55 * torch.rand(n, 1, 10, 10, generator=generator), y


def trained(classes):
    model = network(classes)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        x, y = samples(classes, 128, 10 + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def case():
    """A small trained network, and images that it has right."""
    model = trained(6)
    x, y = samples(6, 90, 5)
    right = predict(model, x) == y
    assert right.sum() > 60
    return model, x[right][:60], y[right][:60]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def pyautoattack():
    return pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")


@pytest.fixture
def adv_lib(monkeypatch):
    for unused in ("visdom", "tqdm"):
        module = types.ModuleType(unused)
        module.__spec__, module.Visdom = ModuleSpec(unused, None), None
        monkeypatch.setitem(sys.modules, unused, module)
    return pytest.importorskip("adv_lib.attacks.auto_pgd", reason="adv-lib is not installed")


def check_breaks(model, x, y, images, broken, eps, norm):
    """What is said to be broken is: by a pass of its own, in the ball and in the range."""
    assert images.dtype == x.dtype and images.shape == x.shape
    assert torch.equal(predict(model, images)[broken] != y[broken], torch.ones_like(y[broken], dtype=torch.bool))
    order = torch.inf if norm == "linf" else 2
    distance = torch.linalg.vector_norm((images.double() - x.double()).flatten(1), order, dim=1)
    assert distance.max() <= eps * (1 + 1e-6) + 1e-7
    assert images.min() >= 0 and images.max() <= 1


# Against the authors' own code.


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [100, 37, 5])
@pytest.mark.parametrize("objective", ["ce", "dlr"])
def test_auto_pgd_is_the_authors(case, double, pyautoattack, norm, steps, objective):
    from pyautoattack.autopgd_base import APGDAttack_targeted

    model, x, y = case
    model, x, eps = network(6).double().eval(), x.double(), RADII[norm]
    model.load_state_dict(case[0].state_dict())
    start = Draws(0, len(x), torch.arange(len(x))).starts(Ball(eps, norm), x, "start")
    with torch.no_grad():
        target = model(x).argsort(1)[:, -2]
    oracle = APGDAttack_targeted(model, eps=eps, norm=ORACLE_NORMS[norm], n_iter=steps)
    oracle.loss = {"ce": "ce", "dlr": "dlr-targeted"}[objective]
    oracle.init_hyperparam(x)
    oracle.y_target = target
    best, right, *_ = oracle.attack_single_run(x, y, start)
    with at_rest(model), torch.no_grad():
        follow = OBJECTIVES["ce"] if objective == "ce" else dlr_to
        found = climb(model, follow, x, y, target, start, Ball(eps, norm), steps)
    assert torch.equal(found.broken, ~right.bool())
    assert found.broken.any() and not found.broken.all()
    # And at the same place after all steps, where the class stayed right.
    left = ~found.broken
    torch.testing.assert_close(found.images[left], best.detach()[left], rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_attack_is_the_authors(case, pyautoattack, norm):
    from pyautoattack.square import SquareAttack

    class Everywhere(SquareAttack):
        """The original with the last row and column of places, which its draw of whole numbers leaves out."""

        def random_int(self, low=0, high=1, shape=(1,)):
            return super().random_int(low, high + 1, shape)

    model, x, y = case
    oracle = Everywhere(
        model, ORACLE_NORMS[norm], n_queries=150, eps=RADII[norm], seed=derive(3, "square", norm), resc_schedule=True
    )
    # In l2 it draws for the images that are left: only one by one it draws as ours does.
    parts = [slice(None)] if norm == "linf" else [slice(i, i + 1) for i in range(12)]
    broken = []
    for part in parts:
        with torch.no_grad():
            expected = oracle.perturb(x[part].clone(), y[part])
        found = square(model, x[part], y[part], RADII[norm], norm, queries=150, seed=3)
        wrong = predict(model, expected) != y[part]
        assert torch.equal(found.broken, wrong)
        torch.testing.assert_close(found.images[wrong], expected[wrong], rtol=0, atol=1e-5)
        broken.append(wrong)
    broken = torch.cat(broken)
    assert broken.any() and not broken.all()


def test_squares_shrink_as_the_authors_do(pyautoattack):
    from pyautoattack.square import SquareAttack

    for queries in (10_000, 5000, 700):
        oracle = SquareAttack(None, n_queries=queries, eps=0.1)
        assert all(_share(i, queries) == oracle.p_selection(i) for i in range(queries))
    # The table of the paper (its section 5), for 10,000 queries.
    table = {0: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625, 8001: 0.8 / 512}
    assert {query: _share(query, 10_000) for query in table} == pytest.approx(table)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_robust_sets_are_those_of_two_libraries(case, pyautoattack, adv_lib, norm):
    """With random starts of their own: at least 57 images of sixty alike."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    model, x, y = case
    eps, order = RADII[norm], {"linf": float("inf"), "l2": 2}[norm]
    torch.manual_seed(0)
    for ours, official, theirs in (
        (
            apgd(model, x, y, eps, norm),
            APGDAttack(model, eps=eps, norm=ORACLE_NORMS[norm], n_restarts=1).perturb(x, y),
            adv_lib.apgd(model, x, y, eps, order, loss_function="ce"),
        ),
        (
            apgd_targeted(model, x, y, eps, norm),
            APGDAttack_targeted(model, eps=eps, norm=ORACLE_NORMS[norm], n_target_classes=5).perturb(x, y),
            adv_lib.apgd_targeted(model, x, y, eps, order),
        ),
    ):
        assert 5 < ours.broken.sum() < 55
        for images in (official, theirs):
            assert (ours.broken != (predict(model, images) != y)).sum() <= 3


# Against closed forms.


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight, bias
    return nn.Sequential(nn.Flatten(), layer)


def two_classes(n=40):
    """A linear network of two classes, images in the middle of the range, and their distances to its boundary."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float64)
    difference = weight[1] - weight[0]
    bias = torch.zeros(2, dtype=torch.float64)
    bias[0] = (x.flatten(1) @ difference).median() + 1e-3
    gap = (x.flatten(1) @ difference - bias[0]).abs()
    model = linear(weight, bias)
    return model, x, predict(model, x), {"linf": gap / difference.abs().sum(), "l2": gap / difference.norm()}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", LOSSES)
def test_auto_pgd_breaks_a_linear_network_beyond_its_distance(norm, loss):
    model, x, y, distances = two_classes()
    eps = distances[norm].median().item()
    clear = (distances[norm] - eps).abs() > 1e-3 * eps
    expected = distances[norm] < eps
    for found in (apgd(model, x, y, eps, norm, loss), apgd_targeted(model, x, y, eps, norm)):
        assert torch.equal(found.broken[clear], expected[clear])
    assert expected[clear].any() and not expected[clear].all()


@pytest.mark.parametrize("attack", [apgd, square])
def test_the_optimum_of_a_linear_network_in_the_pixel_range(attack):
    # In linf every pixel goes to the end of its interval that its weight asks for, cut to [0, 1].
    model, *_ = two_classes()
    model[1].bias.data[0] += 100  # never broken
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y, eps = torch.zeros(20, dtype=torch.int64), 0.3
    difference = (model[1].weight[1] - model[1].weight[0]).detach().view(1, 1, 4, 4)
    optimum = torch.where(difference > 0, (x + eps).clamp(max=1), (x - eps).clamp(min=0))
    more = {"queries": 1500} if attack is square else {"loss": "margin"}
    found = attack(model, x, y, eps, **more)
    assert not found.broken.any()
    torch.testing.assert_close(found.images, optimum, rtol=0, atol=1e-6)


def test_square_attack_in_l2_comes_near_the_optimum_of_a_linear_network():
    model, x, y, distances = two_classes()
    found = square(model, x, y, 1.5 * distances["l2"].median().item(), "l2", queries=3000)
    assert found.broken[distances["l2"] < distances["l2"].median()].all()
    assert not found.broken[distances["l2"] > 1.5 * distances["l2"].median()].any()


def test_a_gradient_that_has_nearly_faded_still_counts_in_l2():
    model, x, y, distances = two_classes(10)
    eps = 2 * distances["l2"].max().item()
    faint = Scale(model, 1e-20).float()
    assert apgd(faint, x.float(), y, eps, "l2", "margin", steps=10).broken.all()


# The ladder.


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_break_is_real(case, norm):
    model, x, y = case
    y = y.clone()
    y[::7] = (y[::7] + 1) % 6  # wrong from the start
    eps = RADII[norm]
    found = ladder(model, x, y, eps, norm, budget=FEW, keep_images=True)
    assert found.rungs == ("clean", *RUNGS) and len(found.seconds) == 9 and found.broken_by.dtype == torch.int8
    assert torch.equal(found.broken_by == 0, predict(model, x) != y)
    assert torch.equal(found.images[found.broken_by <= 0], x[found.broken_by <= 0])
    check_breaks(model, x, y, found.images, found.broken_by > 0, eps, norm)
    assert (found.broken_by > 0).any() and (found.broken_by < 0).any()
    left = [((found.broken_by < 0) | (found.broken_by > i)).double().mean().item() for i in range(9)]
    assert list(found.accuracy) == left == sorted(left, reverse=True)
    assert robust_accuracy(model, x, y, eps, norm, budget=FEW) == left[-1]
    again = ladder(model, x, y, eps, norm, budget=FEW)
    assert torch.equal(again.broken_by, found.broken_by) and again.images is None


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rung", RUNGS)
def test_each_rung_by_itself(case, norm, rung):
    model, x, y = case
    found = ladder(model, x, y, RADII[norm], norm, [rung], FEW, keep_images=True)
    check_breaks(model, x, y, found.images, found.broken_by == 1, RADII[norm], norm)
    assert (found.broken_by == 1).any()
    assert not (ladder(model, x, y, 0.0, norm, [rung], FEW).broken_by >= 0).any()
    assert (ladder(model, x, y, 10 * RADII[norm], norm, [rung], FEW).broken_by == 1).double().mean() > 0.9


@pytest.mark.parametrize("name", BUDGETS)
def test_a_budget_by_name(case, monkeypatch, name):
    model, x, y = case
    spent = []

    def note(model, x, y, task):
        spent.append(task.budget)
        return Found(x, torch.zeros(len(x), dtype=torch.bool))

    monkeypatch.setattr(rungs, "RUNGS", {"note": note})
    ladder(model, x, y, 0.06, rungs=["note"], budget=name)
    robust_accuracy(model, x, y, 0.06, rungs=["note"], budget=name)
    assert spent == [BUDGETS[name]] * 2
    ladder(model, x, y, 0.06, rungs=["note"])
    assert spent[-1] == Budget() == BUDGETS["full"] != BUDGETS["fast"]


def test_images_near_a_break_meet_the_full_budget(case, monkeypatch):
    """Two false rungs: one goes part of the way to an image of another class, one a smaller part to a third image."""
    model, x, y = case
    other = torch.stack([x[(y != label).nonzero()[0, 0]] for label in y])
    met = []

    def towards(share):
        def rung(model, x, y, task):
            met.append((share, task.budget, task.draws.places.tolist()))
            images = x + share * (other[task.draws.places] - x)
            return Found(images, (predict(model, images) != y) & (task.budget == Budget()))

        return rung

    def margins(images):
        logits = model(images).detach()
        true = logits[torch.arange(len(y)), y]
        return true - torch.where(torch.eye(6, dtype=torch.bool)[y], -torch.inf, logits).amax(1)

    monkeypatch.setattr(rungs, "RUNGS", {"half": towards(0.5), "less": towards(0.2)})
    cheap = Budget(classes=1, near=0.3)
    found = ladder(model, x, y, 1.0, rungs=["less", "half"], budget=cheap)
    reached = torch.minimum(*(margins(x + share * (other - x)) for share in (0.5, 0.2))) / margins(x)
    near = (reached <= 0.3).nonzero()[:, 0].tolist()
    everything = list(range(len(x)))
    assert 5 < len(near) < len(x) - 5
    assert [one[:2] for one in met] == [(0.2, cheap), (0.5, cheap), (0.2, Budget()), (0.5, Budget())]
    assert met[0][2] == met[1][2] == everything and met[2][2] == near
    broken = margins(x + 0.5 * (other - x)) < 0
    assert torch.equal(found.broken_by > 0, broken) and 0 < broken.sum() < len(near)
    met.clear()
    ladder(model, x, y, 1.0, rungs=["less", "half"], budget=cheap._replace(near=0.0))
    assert len(met) == 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_second_climb_finds_what_its_budget_finds(case, monkeypatch, norm):
    model, x, y = network(6).double().eval(), case[1].double(), case[2]
    model.load_state_dict(case[0].state_dict())
    monkeypatch.setattr(rungs, "STANDARD", FEW)
    least = Budget(pgd_steps=1, classes=1, apgd_steps=1, square_queries=1)
    cheap, dear, both, some = (
        ladder(model, x, y, RADII[norm], norm, budget=budget).broken_by > 0
        for budget in (least, FEW, least._replace(near=1.0), least._replace(near=0.1))
    )
    assert torch.equal(both, cheap | dear) and (dear & ~cheap).any()
    assert not (some & ~both).any() and not (cheap & ~some).any()
    for batch_size in (7, 60):  # an image meets the same attack whoever is beside it
        again = ladder(model, x, y, RADII[norm], norm, budget=least._replace(near=0.1), batch_size=batch_size)
        assert torch.equal(again.broken_by > 0, some)


def test_a_claim_that_is_no_break_does_not_count(case, monkeypatch):
    model, x, y = case
    far = ladder(model, x, y, 0.9, rungs=["fgsm"], keep_images=True).images
    wrong = predict(model, far) != y
    x, y, far = x[wrong], y[wrong], far[wrong]
    assert len(x) > 20

    def lie(images):
        everything = torch.ones(len(x), dtype=torch.bool)
        return lambda model, x, y, task: Found(images(x), everything)

    claims = {"right": lambda x: x, "outside": lambda _: far, "range": lambda x: x - 0.05}
    monkeypatch.setattr(rungs, "RUNGS", {name: lie(images) for name, images in claims.items()})
    found = ladder(model, x, y, 0.06, rungs=list(claims), keep_images=True)
    assert (found.broken_by == -1).all(), found.broken_by
    assert torch.equal(found.images, x)
    assert (ladder(model, x, y, 0.95, rungs=["outside"]).broken_by == 1).all()


def test_the_papers_rung_is_its_pgd(case):
    model, x, y = case
    budget = Budget(alpha=0.004, pgd_steps=20)
    found = ladder(model, x, y, 0.04, rungs=["fgsm", "pgd"], budget=budget)
    first = pgd_iterations(model, x, y, 0.04, 0.004, 20).first
    alone = ladder(model, x, y, 0.04, rungs=["pgd"], budget=budget)
    assert torch.equal(alone.broken_by == 1, first <= 20)
    assert torch.equal(found.broken_by >= 0, (first <= 20) | (pgd_iterations(model, x, y, 0.04, 0.04, 1).first <= 1))
    assert 0 < (first <= 20).sum() < len(x)


@pytest.mark.parametrize(("norm", "alpha"), [("linf", 0.01), ("l2", 2.5 * 0.3 / 5)])
def test_the_papers_rung_has_the_papers_step(case, norm, alpha):
    model, x, y = case
    eps, few = {"linf": 0.05, "l2": 0.3}[norm], Budget(pgd_steps=5)
    plain, told = (
        ladder(model, x, y, eps, norm, ["pgd"], budget, keep_images=True).images
        for budget in (few, few._replace(alpha=alpha))
    )
    assert torch.equal(plain, told) and not torch.equal(plain, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_meets_the_same_attack_whoever_fell_before(case, norm):
    model, x, y = network(6).double().eval(), case[1].double(), case[2]
    model.load_state_dict(case[0].state_dict())
    eps = RADII[norm]
    whole = ladder(model, x, y, eps, norm, budget=FEW, keep_images=True)
    for batch_size in (7, 60):
        again = ladder(model, x, y, eps, norm, budget=FEW, batch_size=batch_size, keep_images=True)
        assert torch.equal(again.broken_by, whole.broken_by)
        torch.testing.assert_close(again.images, whole.images, rtol=0, atol=1e-9)
    alone = torch.stack([ladder(model, x, y, eps, norm, [rung], FEW).broken_by == 1 for rung in RUNGS])
    assert torch.equal(alone.any(0), whole.broken_by > 0)
    assert torch.equal(torch.where(alone.any(0), alone.byte().argmax(0) + 1, -1), whole.broken_by.long())
    assert not torch.equal(
        ladder(model, x, y, eps, norm, ["apgd_ce"], FEW, seed=1, keep_images=True).images, whole.images
    )


@pytest.mark.parametrize("factor", [10, 100])
def test_confidence_does_not_hide_from_the_ladder(case, factor):
    """Logits times a factor: the same decisions; float32 cross-entropy loses its gradient, the ladder does not."""
    model, x, y = case
    eps, sure = 0.08, Scale(model, float(factor))
    plain, masked = (ladder(m, x, y, eps, budget=FEW._replace(apgd_steps=40)) for m in (model, sure))
    assert (masked.broken_by < 0).sum() <= (plain.broken_by < 0).sum() + 1
    if factor == 100:
        after = dict(zip(masked.rungs, masked.accuracy, strict=True))
        assert after["pgd"] > after["square"] + 0.3


def test_square_attack_needs_no_gradient(case):
    """A network behind a staircase has none; only Square Attack breaks it."""
    model, x, y = case

    class Stairs(nn.Module):
        def forward(self, x):
            return model((x * 64).round() / 64)

    stairs = Stairs().eval()
    right = predict(stairs, x) == y
    found = ladder(stairs, x[right], y[right], 0.2, budget=FEW._replace(square_queries=300))
    assert (found.broken_by == len(RUNGS)).double().mean() > 0.5


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes(classes):
    model = trained(classes)
    x, y = samples(classes, 20, 6)
    found = ladder(model, x, y, 0.12, budget=FEW, keep_images=True)
    check_breaks(model, x, y, found.images, found.broken_by > 0, 0.12, "linf")
    alone = ladder(model, x, y, 0.12, rungs=["apgd_targeted"], budget=FEW).broken_by
    assert 0.3 < (alone == 1).double().mean() <= (found.broken_by > 0).double().mean()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_network_without_parameters(case, norm):
    model, x, y = case
    frozen = torch.jit.freeze(torch.jit.script(model))
    assert not list(frozen.parameters())
    one, other = (ladder(m, x[:20], y[:20], RADII[norm], norm, budget=FEW).broken_by for m in (model, frozen))
    assert ((one < 0) != (other < 0)).sum() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 5, 3), (2, 14, 9)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_of_any_size(shape, norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(torch.tensor(shape).prod().item(), 3)).eval()
    x = torch.rand(9, *shape)
    y = predict(model, x)
    found = ladder(model, x, y, 0.05, norm, budget=FEW, batch_size=4, keep_images=True)
    check_breaks(model, x, y, found.images, found.broken_by > 0, 0.05, norm)
    linf = square(model, x, y, 2.0, norm, queries=50)
    assert linf.images.isfinite().all() and linf.images.shape == x.shape


def test_objectives():
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 4.0, 1.0, 2.0]], dtype=torch.float64)
    y, target = torch.tensor([0, 2]), torch.tensor([2, 1])
    assert margin_to(logits, y, target).tolist() == [-2, 3]
    # By eq. 7 of arXiv 2003.01690: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2).
    assert dlr_to(logits, y, target).tolist() == pytest.approx([-2 / (5 - 1.5), 3 / (4 - 0.5)])
    torch.testing.assert_close(dlr_to(7 * logits, y, target), dlr_to(logits, y, target))


def test_the_model_is_left_as_found(case):
    model = network(6).train()
    model.load_state_dict(case[0].state_dict())
    ladder(model, case[1][:4], case[2][:4], 0.05, budget=FEW)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -1.0}, "eps must be a finite number >= 0, found -1.0"),
        ({"norm": "l1"}, "norm must be one of linf, l2, found 'l1'"),
        ({"rungs": ["fgsm", "fab"]}, "rungs must be one of fgsm, .*, square, found 'fab'"),
        ({"rungs": []}, r"rungs must be a list of at least one of .*, found \[\]"),
        ({"rungs": "pgd"}, "rungs must be a list .*, found 'pgd'"),
        ({"rungs": ["pgd", "pgd"]}, "rungs must be different ones, found pgd twice"),
        ({"budget": "quick"}, "budget must be one of full, fast, found 'quick'"),
        ({"budget": Budget(apgd_steps=0)}, "apgd_steps must be a whole number >= 1, found 0"),
        ({"budget": Budget(square_queries=1.5)}, "square_queries must be a whole number >= 1, found 1.5"),
        ({"budget": Budget(near=-0.5)}, "near must be a finite number >= 0, found -0.5"),
        ({"budget": Budget(alpha=float("nan"))}, "alpha must be a finite number >= 0, found nan"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, found 0"),
        ({"y": torch.tensor([0, 6])}, "y must lie in 0 to 5, found 0 to 6"),
        ({"x": torch.full((2, 1, 10, 10), 1.5)}, r"x must lie in \[0, 1\]"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    given = {"model": network(6), "x": torch.rand(2, 1, 10, 10), "y": torch.tensor([0, 1]), "eps": 0.1} | change
    for call in (ladder, robust_accuracy):
        with pytest.raises(ValueError, match=message) as error:
            call(**given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("attack", "change", "message"),
    [
        (apgd, {"loss": "dlr"}, "loss must be one of ce, ce_stable, margin, found 'dlr'"),
        (apgd, {"restarts": 0}, "restarts must be a whole number >= 1, found 0"),
        (apgd, {"norm": "l0"}, "norm must be one of linf, l2"),
        (apgd_targeted, {"classes": 0}, "classes must be a whole number >= 1, found 0"),
        (apgd_targeted, {"steps": 0}, "steps must be a whole number >= 1, found 0"),
        (square, {"queries": 0}, "queries must be a whole number >= 1, found 0"),
        (square, {"batch_size": 0}, "batch_size must be a whole number >= 1, found 0"),
        (square, {"eps": -0.1}, "eps must be a finite number >= 0, found -0.1"),
    ],
)
def test_bad_input_of_single_attacks(attack, change, message):
    given = {"model": network(6), "x": torch.rand(2, 1, 10, 10), "y": torch.tensor([0, 1]), "eps": 0.1} | change
    with pytest.raises(ValueError, match=message):
        attack(**given)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_cuda_equals_cpu(case, norm):
    model, x, y = network(6).double().eval(), case[1].double(), case[2]
    model.load_state_dict(case[0].state_dict())
    on_cpu = ladder(model, x, y, RADII[norm], norm, budget=FEW).broken_by
    model.cuda()
    assert torch.equal(ladder(model, x, y, RADII[norm], norm, budget=FEW).broken_by, on_cpu)
    assert torch.equal(ladder(model, x.cuda(), y.cuda(), RADII[norm], norm, budget=FEW).broken_by.cpu(), on_cpu)
