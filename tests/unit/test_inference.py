import pytest
import torch
from torch import nn

from dprobust.inference import (
    at_rest,
    check_images,
    classes,
    compact,
    home,
    input_gradient,
    logit_differences,
    map_batches,
    predict,
)
from dprobust.precision import full_float32


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Dropout(0.5), nn.Tanh(), nn.Linear(9, 4))


def images(n=10):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def test_predict():
    model, x = net(), images()
    classes = predict(model, x, batch_size=3)
    with torch.no_grad():
        assert torch.equal(classes, model.eval()(x).argmax(1))
    assert classes.dtype == torch.int64 and len(classes.unique()) > 1
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\], found -1 to -1"):
        predict(model, torch.full((2, 3, 2, 2), -1.0))
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1, found 2.5"):
        predict(model, x, batch_size=2.5)


def test_map_batches_joins_even_slices_of_each_tensor():
    sizes = []

    def function(a, b):
        sizes.append(len(a))
        assert not torch.is_grad_enabled()
        return a + b, a.bool()

    a, b = torch.arange(7), torch.arange(7) * 10
    total, flags = map_batches(net(), function, 3, a, b)
    assert sizes == [3, 2, 2]
    assert torch.equal(total, a + b) and torch.equal(flags, a.bool())


def test_at_rest_restores_each_module_and_parameter():
    model = net().train()
    model[2].eval()
    model[1].weight.requires_grad_(False)
    with pytest.raises(KeyError), at_rest(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise KeyError
    assert [module.training for module in model] == [True, True, False, True, True] and model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda model, x: torch.jit.script(model),
        lambda model, x: torch.jit.freeze(torch.jit.script(model)),
        lambda model, x: torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)).module(),
    ],
    ids=["script", "frozen script", "exported program"],
)
@pytest.mark.filterwarnings("ignore")
def test_models_of_other_kinds(make):
    model, x = net().eval(), images()
    other = make(model, x)
    torch.testing.assert_close(predict(other, x, batch_size=4), predict(model, x))
    for one, another in zip(
        input_gradient(other, lambda logits, y: logits[:, 2], x, torch.zeros(10)),
        input_gradient(model, lambda logits, y: logits[:, 2], x, torch.zeros(10)),
        strict=True,
    ):
        torch.testing.assert_close(one, another)


def test_a_model_without_parameters_runs_where_the_images_are():
    class Means(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)

    model, x = Means().train(), images()
    assert home(model, x) == x.device
    check_images(model, x.double(), torch.zeros(10, dtype=torch.int64))
    assert torch.equal(predict(model, x), (x.mean((1, 2, 3)) < 0.5).long()) and model.training
    with torch.device("meta"):
        model.register_buffer("mean", torch.zeros(1))
    assert home(model, x).type == "meta"


def test_small_types():
    for count, dtype in ((2, torch.uint8), (256, torch.uint8), (257, torch.int16), (32768, torch.int16)):
        values = torch.tensor([0, count - 1])
        assert compact(values, count).dtype == dtype
        assert torch.equal(compact(values, count).long(), values)
    assert compact(torch.tensor([32768]), 32769).tolist() == [32768]
    logits = torch.zeros(2, 3, 300).scatter(2, torch.tensor([[[7], [299], [0]], [[1], [2], [256]]]), 1.0)
    assert classes(logits).tolist() == [[7, 299, 0], [1, 2, 256]] and classes(logits).dtype == torch.int16
    assert classes(logits[..., :8]).dtype == torch.uint8


@pytest.fixture
def policy():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark
    precision = torch.get_float32_matmul_precision()
    yield cudnn, matmul
    torch.set_float32_matmul_precision(precision)
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def test_full_float32_turns_tf32_off_and_says_so(policy):
    cudnn, matmul = policy
    torch.set_float32_matmul_precision("medium")
    cudnn.allow_tf32 = matmul.allow_tf32 = cudnn.benchmark = True
    told = full_float32()
    assert told == {
        "matmul": "highest",
        "matmul_tf32": False,
        "cudnn_tf32": False,
        "cudnn_deterministic": True,
        "cudnn_benchmark": False,
    }
    assert not (cudnn.allow_tf32 or matmul.allow_tf32 or cudnn.benchmark) and cudnn.deterministic
    assert cudnn.conv.fp32_precision != "tf32" and matmul.fp32_precision != "tf32"
    assert torch.get_float32_matmul_precision() == "highest"
    with cudnn.flags(enabled=True):  # reads the flags: raises where the two interfaces are mixed
        pass
    assert full_float32() == told


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_convolutions_are_in_float32_on_cuda(policy):
    full_float32()
    layer = nn.Conv2d(64, 64, 3).cuda()
    x = torch.rand(8, 64, 16, 16, device="cuda")
    exact = layer.double()(x.double())
    error = (layer.float()(x) - exact).abs().max() / exact.abs().max()
    assert error < 1e-5  # TF32 rounds each factor by up to 2^-11


def test_input_gradient_equals_torch_func():
    model, x = net().eval(), images()
    gradient, logits = input_gradient(model, lambda logits, y: logits[:, 2], x, torch.zeros(10))
    expected = torch.func.vmap(torch.func.grad(lambda image: model(image[None])[0, 2]))(x)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(logits, model(x)) and not logits.requires_grad


def test_logit_differences_equal_torch_func():
    model, x = net().eval(), images()
    reference = torch.arange(10) % 4
    differences, gradients = logit_differences(model, x, reference)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda image: model(image[None])[0]))(x)
    logits = model(x)
    assert differences.shape == (10, 3) and gradients.shape == (10, 3, 3, 2, 2)
    for i, r in enumerate(reference.tolist()):
        for j in range(3):
            k = (r + 1 + j) % 4
            torch.testing.assert_close(differences[i, j], logits[i, k] - logits[i, r])
            torch.testing.assert_close(gradients[i, j], jacobian[i, k] - jacobian[i, r])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_images_travel_to_the_model():
    model, x = net(), images()
    classes = predict(model, x)
    on_cuda = predict(model.cuda(), x)
    assert on_cuda.device.type == "cpu" and torch.equal(on_cuda, classes)
