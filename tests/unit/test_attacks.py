import math

import foolbox
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dprobust.attacks import (
    LOSSES,
    fgsm,
    fgsm_curve,
    first_adversarial_step,
    log_odds_against,
    pgd,
    pgd_iterations,
    pgd_record,
)

EPS_GRID = [0.0, 0.02, 0.1, 0.3]


class Shift(nn.Module):
    def forward(self, x):
        return (x - 0.3) / 0.2


def conv_net(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(
        Shift(),
        nn.Conv2d(2, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(5 * 3 * 4, classes),
    )


def mlp(classes=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(160, 32), nn.Tanh(), nn.Linear(32, classes))


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight, bias
    return nn.Sequential(nn.Flatten(), layer)


def batch(model, n=33):
    """Images and, but for every fifth, the class the model gives them."""
    x = torch.rand(n, 2, 8, 10, generator=torch.Generator().manual_seed(2))
    model.eval()
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    y[::5] = logits.argmin(1)[::5]
    return x, y


def predict(model, x):
    with torch.no_grad():
        return model.eval()(x).argmax(1)


def foolbox_images(attack, model, x, y, eps):
    peer = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
    return attack.run(peer, x, foolbox.criteria.Misclassification(y), epsilon=eps)


@pytest.mark.parametrize("make", [conv_net, mlp])
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.3])
def test_fgsm_equals_foolbox_bit_for_bit(make, eps):
    model = make()
    x, y = batch(model)
    expected = foolbox_images(foolbox.attacks.LinfFastGradientAttack(), model, x, y, eps)
    assert torch.equal(fgsm(model, x, y, eps), expected)
    assert not torch.equal(expected, x)


@pytest.mark.parametrize("make", [conv_net, mlp])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pgd_equals_foolbox(make, memory_format):
    model = make().to(memory_format=memory_format)
    x, y = batch(model)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.01, steps=40, random_start=False)
    expected = foolbox_images(attack, model, x, y, 0.1)
    torch.testing.assert_close(pgd(model, x, y, 0.1, 0.01, 40), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_step_of_size_eps_is_fgsm(loss):
    model = conv_net()
    x, y = batch(model)
    assert torch.equal(pgd(model, x, y, 0.1, alpha=0.1, steps=1, loss=loss), fgsm(model, x, y, 0.1, loss=loss))


@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_stays_in_ball_and_range(random_start):
    model = conv_net()
    x, y = batch(model)
    generator = torch.Generator().manual_seed(0) if random_start else None
    images = pgd(model, x, y, 0.1, 0.07, 5, random_start=random_start, generator=generator)
    assert (images - x).abs().max() <= 0.1 + 1e-7
    assert images.min() == 0 and images.max() == 1
    assert images.shape == x.shape and images.dtype == x.dtype


def test_losses_of_moderate_logits():
    logits = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 6
    loss = cross_entropy(logits, y, reduction="none")
    assert torch.equal(LOSSES["ce"](logits, y), loss)
    torch.testing.assert_close(LOSSES["ce_stable"](logits, y), loss)
    p = logits.softmax(1)[torch.arange(20), y]
    torch.testing.assert_close(log_odds_against(logits, y), ((1 - p) / p).log())
    others = torch.stack([torch.cat([row[:k], row[k + 1 :]]) for row, k in zip(logits, y, strict=True)])
    torch.testing.assert_close(LOSSES["margin"](logits, y), others.max(1).values - logits[torch.arange(20), y])


def test_saturated_cross_entropy_loses_the_true_class():
    # f_0 = 120 x_0 + 30 falls with x_0 alone, f_1 = 60 x_1 + 60 x_2 rises with the others. At (0.5, 0.5, 0)
    # the logits are 90, 30 and 20: softmax rounds to 1, and the gradient p - onehot lacks the first class.
    weight = torch.tensor([[120.0, 0.0, 0.0], [0.0, 60.0, 60.0], [0.0, 0.0, 0.0]])
    model = linear(weight, torch.tensor([30.0, 0.0, 20.0]))
    x, y = torch.tensor([0.5, 0.5, 0.0]).view(1, 1, 1, 3), torch.tensor([0])
    ce = fgsm_curve(model, x, y, [0.0, 0.3], "ce")
    assert ce.saturated.all() and not ce.zero_gradient.any()
    assert ce.correct.tolist() == [[True, True]]
    assert fgsm(model, x, y, 0.3, "ce").flatten()[0] == 0.5
    for loss in ("ce_stable", "margin"):
        curve = fgsm_curve(model, x, y, [0.0, 0.3], loss)
        assert curve.saturated.all()
        assert curve.correct.tolist() == [[True, False]]


def test_only_margin_survives_extreme_confidence():
    weight = 500 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    model = linear(weight, torch.zeros(3))
    x, y = torch.tensor([0.6, 0.1]).view(1, 1, 1, 2), torch.tensor([0])
    for loss, fooled in (("ce", False), ("ce_stable", False), ("margin", True)):
        curve = fgsm_curve(model, x, y, [0.3], loss)
        assert curve.zero_gradient.item() is not fooled
        assert curve.correct.item() is not fooled


@pytest.mark.parametrize("loss", LOSSES)
def test_linear_model_flips_beyond_its_linf_distance(loss):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(50, 1, 3, 4, generator=generator, dtype=torch.float64)
    model = linear(weight, torch.zeros(2, dtype=torch.float64))
    difference = weight[1] - weight[0]
    model[1].bias.data[0] = (x.flatten(1) @ difference).median()
    y = predict(model, x)
    values = x.flatten(1) @ difference - model[1].bias.data[0]
    distance = values.abs() / difference.abs().sum()
    grid = [0.005, 0.01, 0.02]
    correct = fgsm_curve(model, x, y, grid, loss).correct
    assert torch.equal(correct, distance[:, None] > torch.tensor(grid))
    assert correct.any() and not correct.all()


@pytest.mark.parametrize("loss", LOSSES)
def test_fgsm_curve_is_fgsm_at_each_eps(loss):
    model = conv_net()
    x, y = batch(model)
    curve = fgsm_curve(model, x, y, EPS_GRID, loss)
    assert curve.correct.shape == (33, 4) and curve.correct.dtype == torch.bool
    assert torch.equal(curve.correct[:, 0], predict(model, x) == y)
    for column, eps in zip(curve.correct.unbind(1), EPS_GRID, strict=True):
        assert torch.equal(column, predict(model, fgsm(model, x, y, eps, loss)) == y)
    assert curve.correct[:, -1].sum() < curve.correct[:, 0].sum()


@pytest.mark.parametrize("classes", [4, 300])
def test_fgsm_curve_keeps_classes_and_gradients(classes):
    model = conv_net(classes)
    x, y = batch(model)
    curve = fgsm_curve(model, x, y, EPS_GRID)
    assert curve.predicted.dtype == (torch.uint8 if classes <= 256 else torch.int16)
    for column, eps in zip(curve.predicted.unbind(1), EPS_GRID, strict=True):
        assert torch.equal(column.long(), predict(model, fgsm(model, x, y, eps)))
    assert torch.equal(curve.correct, curve.predicted == y[:, None])
    images = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(images), y, reduction="sum"), images)
    torch.testing.assert_close(curve.gradient_norm, gradient.flatten(1).norm(dim=1))


def test_a_gradient_whose_square_vanishes_has_a_norm():
    # p - onehot of the gap g is about exp(-g): with a gap of 60 its square is below float32's smallest number.
    model = linear(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([60.0, 0.0]))
    x, y = torch.zeros(3, 1, 1, 2), torch.tensor([0, 0, 0])
    curve = fgsm_curve(model, x, y, [0.0], "ce_stable")
    assert not curve.zero_gradient.any()
    assert curve.gradient_norm.tolist() == pytest.approx([5 * math.exp(-60)] * 3, rel=1e-5, abs=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_record_is_pgd_after_each_step(loss):
    model = conv_net()
    x, y = batch(model)
    record = pgd_record(model, x, y, 0.1, 0.02, range(7), loss)
    assert torch.equal(record.predicted[:, 0].long(), predict(model, x))
    for steps in range(1, 7):
        images = pgd(model, x, y, 0.1, 0.02, steps, loss)
        assert torch.equal(record.predicted[:, steps].long(), predict(model, images))
        with torch.no_grad():
            torch.testing.assert_close(record.loss[:, steps], LOSSES[loss](model.eval()(images), y))
    assert torch.equal(record.images, images)
    assert torch.equal(record.first, first_adversarial_step(record.predicted == y[:, None]))
    some = pgd_record(model, x, y, 0.1, 0.02, [6, 2], loss)
    assert torch.equal(some.predicted, record.predicted[:, [6, 2]]) and torch.equal(some.loss, record.loss[:, [6, 2]])
    assert torch.equal(some.first, record.first) and torch.equal(some.images, record.images)


def test_iterations_are_those_of_the_record():
    model = conv_net()
    x, y = batch(model)
    found = pgd_iterations(model, x, y, 0.03, 0.01, 5)
    record = pgd_record(model, x, y, 0.03, 0.01, range(6))
    assert torch.equal(found.first, record.first)
    assert {0, 6} < set(found.first.tolist())
    there = found.first.clamp_max(5)[:, None]
    assert torch.equal(found.predicted, record.predicted.gather(1, there).squeeze(1))
    torch.testing.assert_close(found.loss, record.loss.gather(1, there).squeeze(1))
    assert torch.equal(predict(model, found.images), found.predicted.long())
    assert torch.equal(found.images[found.first == 0], x[found.first == 0])
    never = found.first == 6
    torch.testing.assert_close(found.images[never], record.images[never])


def test_first_adversarial_step_of_known_rows():
    rows = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    assert first_adversarial_step(rows).tolist() == [3, 0, 1, 2, 0]


def test_worst_case_over_restarts():
    model = conv_net()
    x, y = batch(model)
    steps = [2, 4, 0]
    worst = pgd_record(model, x, y, 0.05, 0.01, steps, "ce", 3, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    runs = [pgd_record(model, x, y, 0.05, 0.01, steps, "ce", 1, generator) for _ in range(3)]
    right = torch.stack([run.predicted == y[:, None] for run in runs])
    assert torch.equal(worst.predicted == y[:, None], right.all(0))
    assert (right.any(0) & ~right.all(0)).any()
    assert torch.equal(worst.first, torch.stack([run.first for run in runs]).amin(0))
    # By hand: of each image and step the wrong runs, or all where none is, and of these the one of the highest loss.
    for i in range(len(y)):
        for s in range(len(steps)):
            candidates = [run for run, r in zip(runs, right[:, i, s], strict=True) if not r] or runs
            chosen = max(candidates, key=lambda run: run.loss[i, s].item())
            assert worst.predicted[i, s] == chosen.predicted[i, s] and worst.loss[i, s] == chosen.loss[i, s]
            if steps[s] == 4:
                assert torch.equal(worst.images[i], chosen.images[i])


def test_random_start_repeats_with_its_seed():
    model = conv_net()
    x, y = batch(model)
    images = [
        pgd(model, x, y, 0.1, 0.01, 1, random_start=True, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


@pytest.mark.parametrize("batch_size", [1, 7, 33])
def test_result_does_not_depend_on_batch_size(batch_size):
    # In float64, so that the last bit a matrix product may change with its size turns no sign here.
    model = conv_net().double()
    x, y = batch(conv_net())
    x = x.double()
    for one, other in zip(
        fgsm_curve(model, x, y, EPS_GRID, batch_size=batch_size),
        fgsm_curve(model, x, y, EPS_GRID),
        strict=True,
    ):
        assert torch.equal(one, other)
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    torch.testing.assert_close(
        pgd(model, x, y, 0.1, 0.02, 5, random_start=True, generator=generators[0], batch_size=batch_size),
        pgd(model, x, y, 0.1, 0.02, 5, random_start=True, generator=generators[1]),
        rtol=0,
        atol=1e-12,
    )
    assert torch.equal(
        pgd_iterations(model, x, y, 0.1, 0.02, 5, batch_size=batch_size).first,
        pgd_iterations(model, x, y, 0.1, 0.02, 5).first,
    )


def test_model_is_left_as_found():
    model = conv_net().train()
    model[2].eval()
    model[1].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.rand(4, 2, 8, 10), torch.zeros(4, dtype=torch.int64)
    fgsm_curve(model, x, y, EPS_GRID)
    pgd_record(model, x, y, 0.1, 0.01, [2])
    assert [module.training for module in model] == [True, True, False, True, True, True, True, True]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["1.bias"]
    assert all(p.grad is None for p in model.parameters())
    assert not x.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_model_is_restored_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            if len(x) > 1:
                raise RuntimeError("no")
            return x.flatten(1)

    model = nn.Sequential(Fails()).train()
    with pytest.raises(RuntimeError, match="no"):
        fgsm(model, torch.rand(2, 1, 1, 3), torch.zeros(2, dtype=torch.int64), 0.1)
    assert model.training and model[0].training


X, Y = torch.full((3, 2, 8, 10), 0.5), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X + 0.6}, r"x must lie in \[0, 1\], found 1.1 to 1.1"),
        ({"x": X * torch.nan}, r"x must lie in \[0, 1\], found nan"),
        ({"x": (X * 255).to(torch.uint8)}, "x must be float images .* found torch.uint8"),
        ({"x": X[0]}, r"x must be float images of shape \(N, C, H, W\), found torch.float32 \(2, 8, 10\)"),
        ({"x": X[:0], "y": Y[:0]}, "x must be float images"),
        ({"x": X.double()}, "x is torch.float64, the model's parameters are torch.float32"),
        ({"y": Y.int()}, r"y must be int64 of shape \(3,\), found torch.int32 \(3,\)"),
        ({"y": Y[:2]}, r"y must be int64 of shape \(3,\), found torch.int64 \(2,\)"),
        ({"y": Y + 2}, "y must lie in 0 to 3, found 2 to 4"),
        ({"y": Y - 1}, "y must lie in 0 to 3, found -1 to 1"),
        ({"loss": "CE"}, "loss must be one of ce, ce_stable, margin, found 'CE'"),
        ({"eps": -0.1}, "eps must be a finite number >= 0, found -0.1"),
        ({"eps": float("nan")}, "eps must be a finite number >= 0, found nan"),
        ({"alpha": -1.0}, "alpha must be a finite number >= 0"),
        ({"steps": 0}, "steps must be a whole number >= 1, found 0"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, found 0"),
        ({"random_start": True}, "a random start needs a generator"),
        ({"model": nn.Conv2d(2, 3, 3)}, r"the model must return logits \(1, K\), K >= 2, for one image"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {"model": conv_net(), "x": X, "y": Y, "eps": 0.1, "alpha": 0.01, "steps": 2} | change
    with pytest.raises(ValueError, match=message) as error:
        pgd(**arguments)
    assert "\n" not in str(error.value)


def test_bad_grid_and_restarts():
    model = conv_net()
    with pytest.raises(ValueError, match="eps_grid must hold at least one eps"):
        fgsm_curve(model, X, Y, [])
    with pytest.raises(ValueError, match="eps must be a finite number >= 0, found -0.2"):
        fgsm_curve(model, X, Y, [0.1, -0.2])
    with pytest.raises(ValueError, match="restarts must be a whole number >= 1, found 0"):
        pgd_record(model, X, Y, 0.1, 0.01, [2], restarts=0, generator=torch.Generator())
    with pytest.raises(ValueError, match="restarts need a generator"):
        pgd_record(model, X, Y, 0.1, 0.01, [2], restarts=2)
    for steps, message in [([], "steps must be a whole number >= 1"), ([2, -1], "steps must be .* >= 0, found -1")]:
        with pytest.raises(ValueError, match=message):
            pgd_record(model, X, Y, 0.1, 0.01, steps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", LOSSES)
def test_cuda_equals_cpu(loss):
    model = conv_net().double()
    x, y = batch(conv_net())
    x = x.double()
    on_cpu = pgd(model, x, y, 0.1, 0.02, 5, loss)
    curve = fgsm_curve(model, x, y, EPS_GRID, loss)
    model.cuda()
    torch.testing.assert_close(pgd(model, x, y, 0.1, 0.02, 5, loss), on_cpu, rtol=0, atol=1e-9)
    torch.testing.assert_close(pgd(model, x.cuda(), y.cuda(), 0.1, 0.02, 5, loss).cpu(), on_cpu, rtol=0, atol=1e-9)
    assert torch.equal(fgsm_curve(model, x, y, EPS_GRID, loss).correct, curve.correct)
