import pytest
import torch
from torch import nn

from dprobust.inference import at_rest, input_gradient, logit_differences, map_batches, predict


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
