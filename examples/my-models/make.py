"""Train the networks of this folder and write each in another format. From the root of the repository:

PYTHONPATH=. .venv/bin/python examples/my-models/make.py
"""

import io
import logging
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dprobust import arrays, seeds, training
from dprobust.errors import UserError
from dprobust.files import replaced
from dprobust.models import networks
from dprobust.privacy import epsilon
from dprobust.recipe import Training

FOLDER, DATA, DELTA = Path(__file__).parent, Path("data/mnist"), 1e-5
MODEL = {"name": "small_cnn"}
SGD = Training(epochs=4, batch_size=128, lr=0.1, momentum=0.9)


def dpsgd(clip: float, lr: float) -> Training:
    """DP-SGD with sigma 1.3 and bound C, the learning rate fitted to it."""
    return Training(epochs=10, batch_size=512, lr=lr, momentum=0.9, sampling="poisson", sigma=1.3, clip=clip)


def state_dict(model: nn.Module, path: Path) -> None:
    """Parameters by the names that Opacus gives them, as `torch.save(private.state_dict(), path)` writes them."""
    with replaced(path) as temporary:
        torch.save({f"_module.{name}": value for name, value in model.state_dict().items()}, temporary)


def torchscript(model: nn.Module, path: Path) -> None:
    """TorchScript."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.export is to be used instead
        torch.jit.save(torch.jit.script(model), buffer)
    # Debug files name the folders that PyTorch and this repository lie in.
    with replaced(path) as temporary, zipfile.ZipFile(buffer) as old, zipfile.ZipFile(temporary, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith(".debug_pkl"):
                name = re.sub("^[^/]*", path.stem, member.filename)
                new.writestr(zipfile.ZipInfo(name), old.read(member))


def exported(model: nn.Module, path: Path) -> None:
    """An exported program that takes batches of any size."""
    example = torch.zeros(2, 1, 28, 28)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders too
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with replaced(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


NETWORKS: dict[str, tuple[Training, Callable[[nn.Module, Path], None]]] = {
    "sgd.safetensors": (SGD, networks.save),
    "dpsgd_state_dict.pt": (dpsgd(clip=0.1, lr=1.0), state_dict),
    "dpsgd_torchscript.pt": (dpsgd(clip=0.3, lr=0.3), torchscript),
    "dpsgd_exported.pt2": (dpsgd(clip=1.0, lr=0.1), exported),
}


def main() -> None:
    data, test = (arrays.load(DATA / f"{split}.npz") for split in ("train", "test"))
    for name, (settings, write) in NETWORKS.items():
        stream = ("my-models", name)
        model = networks.build(MODEL, data.shape, data.classes, seed=seeds.derive(*stream, "init"))
        history = training.train(model, data, test, settings, stream)
        write(model.eval().to(memory_format=torch.contiguous_format), FOLDER / name)
        told = f"{name}: test accuracy {100 * history[-1]['test_accuracy']:.2f} %"
        if settings.private:
            known = settings.mechanism(len(data))
            spent = epsilon(known["noise_multiplier"], known["sample_rate"], known["steps"], DELTA)
            told += f", epsilon {spent:.3f} at delta {DELTA:g}"
        print(told, flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    try:
        main()
    except (UserError, FileNotFoundError) as error:
        sys.exit(f"error: {error} (snakemake data/mnist/train.npz gets the data)")
