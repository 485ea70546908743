"""Make digits.npz, a small dataset for the example, and the reference values that its figure shows.

MNIST (data/mnist/train.npz and test.npz, which `snakemake data/mnist/train.npz` makes), averaged over 2x2 pixels: the
first 1,500 training and 300 test images of a draw. Called from the root of the repository:

    PYTHONPATH=. python examples/my-lab/make_data.py
"""

from pathlib import Path

import numpy as np
import torch
from my_lab.metrics.rotation.measure import measure
from my_lab.metrics.rotation.settings import Metric
from torch import Tensor, nn

from dprobust.arrays import Split, load
from dprobust.files import replaced
from dprobust.measuring import Images

LAB = Path(__file__).parent
MNIST = LAB.parents[1] / "data" / "mnist"
SIZES = {"train": 1500, "test": 300}
FILE = LAB / "digits.npz"
REFERENCE = LAB / "my_lab" / "paper" / "nearest_mean.csv"


def pooled(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 1, 28, 28) -> uint8 (N, 14, 14), each pixel the mean of four, rounded."""
    n, _, height, width = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2).mean((2, 4)).round().astype(np.uint8)


def small(split: Split, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 14, 14) and labels uint8 (N,) of the dataset."""
    drawn = split.drawn(SIZES[part], "examples/my-lab")
    return pooled(drawn.images), drawn.labels.astype(np.uint8)


class NearestMean(nn.Module):
    """The class whose mean training image is nearest: -|x - mean|^2 / 2, less what all classes share, as logits."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        means = torch.stack([images[labels == k].flatten(1).mean(0) for k in range(int(labels.max()) + 1)])
        self.linear = nn.Linear(*means.T.shape)
        self.linear.weight.data, self.linear.bias.data = means, -means.square().sum(1) / 2

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def reference(arrays: dict[str, np.ndarray]) -> str:
    """Accuracy of `NearestMean` at each angle, as CSV."""
    x, y = ({part: torch.from_numpy(arrays[f"{part}_{what}"]) for part in SIZES} for what in ("images", "labels"))
    x = {part: images[:, None].float() / 255 for part, images in x.items()}
    places = torch.arange(len(x["test"]))
    model = NearestMean(x["train"], y["train"].long())
    rows = measure(model, Images(x["test"], y["test"].long(), places, places), Metric()).rows
    return "".join(["angle,accuracy\n", *(f"{row['angle']:g},{row['value']:.4f}\n" for row in rows)])


def main() -> None:
    arrays = {}
    for part in SIZES:
        images, labels = small(load(MNIST / f"{part}.npz"), part)
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    with replaced(FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    with replaced(REFERENCE) as temporary:
        temporary.write_text(reference(arrays))


if __name__ == "__main__":
    main()
