"""Out of memory: batches in parts. Oracle: the whole batch."""

import logging

import pytest
import torch
from torch import nn

from dprobust.arrays import Split
from dprobust.errors import UserError
from dprobust.inference import map_batches
from dprobust.memory import Halved
from dprobust.recipe import Training
from dprobust.training import train


class Small:
    """A function for which memory suffices for `room` examples."""

    def __init__(self, function, room, error=torch.OutOfMemoryError):
        self.function, self.room, self.error, self.sizes = function, room, error, []

    def __call__(self, *tensors):
        self.sizes.append(len(tensors[0]))
        if len(tensors[0]) > self.room:
            raise self.error("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return self.function(*tensors)


def test_with_memory_enough_it_is_the_function_itself():
    whole = Halved(lambda x: x, join=None)
    x = torch.arange(5)
    assert whole(x) is x and whole.parts == 1


def test_a_batch_is_computed_in_parts_and_later_ones_at_once(caplog):
    small = Small(lambda x, y: x * y, 3)
    halved = Halved(small, torch.cat)
    x, y = torch.arange(10), torch.arange(10) + 1
    assert torch.equal(halved(x, y), x * y)
    assert small.sizes == [10, 5, 3, 3, 2, 2] and halved.parts == 4
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        f"out of memory: batches are computed in {n} parts from here on" for n in (2, 4)
    ]
    small.sizes.clear()
    assert torch.equal(halved(x[:2], y[:2]), x[:2] * y[:2]) and small.sizes == [1, 1]  # fewer examples than parts
    assert halved(x[:0], y[:0]).shape == (0,)


def test_one_example_too_large_is_told_in_a_line():
    with pytest.raises(UserError, match=r"^out of memory with one example at a time \(CUDA out of memory.*GiB\); use"):
        Halved(Small(lambda x: x, 0), torch.cat)(torch.arange(4))


def test_other_errors_are_none_of_memory():
    with pytest.raises(RuntimeError, match="shapes") as caught:
        Halved(Small(lambda x: x, 0, lambda text: RuntimeError("shapes do not fit")), torch.cat)(torch.arange(4))
    assert not isinstance(caught.value, UserError)


def test_the_allocator_of_the_cpu_says_so_in_its_own_way():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    small = Small(lambda x: x, 2, lambda text: RuntimeError(str(caught.value)))
    assert torch.equal(Halved(small, torch.cat)(torch.arange(4)), torch.arange(4))


def test_a_metric_goes_on_in_halves():
    model, x = nn.Linear(3, 2), torch.randn(20, 3)
    small = Small(lambda batch: (model(batch), batch.sum(1)), 4)
    found = map_batches(model, small, 20, x)
    for mine, whole in zip(found, (model(x), x.sum(1)), strict=True):
        torch.testing.assert_close(mine, whole)


@pytest.mark.parametrize(
    "more", [{}, {"clip": 0.1, "sigma": 1.0}, {"clip": 0.1, "sigma": 1.0, "engine": "ghost"}], ids=str
)
def test_a_training_in_parts_is_the_same_but_for_rounding(monkeypatch, more):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (64, 1, 6, 6), generator=random, dtype=torch.uint8).numpy()
    data = Split(images, torch.randint(3, (64,), generator=random).numpy())
    settings = Training(epochs=2, batch_size=16, lr=0.5, **more)
    models = []
    for room in (1000, 5):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        made = Halved.__init__

        def limited(self, function, join, room=room, made=made):
            made(self, Small(function, room), join)

        monkeypatch.setattr(Halved, "__init__", limited)
        train(model, data, data, settings, ("seed", "memory"))
        monkeypatch.setattr(Halved, "__init__", made)
        models.append([p.detach().clone() for p in model.parameters()])
    for one, other in zip(*models, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
