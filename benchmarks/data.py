"""MNIST and a network trained on it, for the parts that measure on real images."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from dprobust import arrays, training
from dprobust.errors import UserError
from dprobust.models import networks as models
from dprobust.recipe import Training

DATA = Path(__file__).parents[1] / "data"


def file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        raise UserError(f"no data/{name}; `make bench` gets it, or: snakemake data/{name}")
    return path


def test_images(n: int) -> tuple[Tensor, Tensor]:
    """The first test images, float32 (n, 1, 28, 28) in [0, 1], and their labels."""
    data = arrays.load(file("mnist/test.npz")).take(slice(n))
    return models.unit(torch.from_numpy(data.images)), torch.from_numpy(data.labels)


@lru_cache(maxsize=2)
def trained_lenet(n: int, private: bool = False) -> nn.Module:
    """The study's LeNet after an epoch of SGD over n training images, or three of DP-SGD, in the memory format of the
    study's jobs."""
    model = models.build({"name": "lenet", "normalize": {"mean": [0.1307], "std": [0.3081]}}, (1, 28, 28), 10)
    train, test = (arrays.load(file(f"mnist/{name}.npz")) for name in ("train", "test"))
    if private:
        settings = Training(epochs=3, sigma=1.3, clip=1.0, sampling="poisson")
    else:
        settings = Training(epochs=1, batch_size=64, lr=0.05, momentum=0.5)
    training.train(model, train.take(slice(n)), test.take(slice(100)), settings, ("benchmark",))
    return model.eval().to(memory_format=torch.channels_last)
