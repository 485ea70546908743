"""What every metric's script has in common: the model, the test images, and a record of what was measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _job import device, job


class Evaluation:
    """A trained model and the images to measure it on.

    Attributes:
        model: in evaluation mode, in the memory format that is fast on the device.
        x: float images (N, C, H, W) in [0, 1].
        y: labels, int64 (N,).
        settings: the metric's entry in the config.
        seed: of the run.
    """

    def __init__(self, snakemake: Any) -> None:
        import torch

        from dprobust import datasets, models

        p, source = snakemake.params, snakemake.input
        self.settings, self.device = p.settings, device(p.device)
        self.seed = int(snakemake.wildcards.seed)
        self.model = models.load(Path(source.model), p.model, self.device).to(memory_format=torch.channels_last)
        data = datasets.load(Path(source.test)).first(p.size)
        self.x, self.y = models.unit(torch.from_numpy(data.images)), torch.from_numpy(data.labels)
        self.about = {name: snakemake.wildcards[name] for name in ("dataset", "run", "seed")}
        self.rows: list[dict] = []

    def add(self, metric: str, values: Any, **parameters: Any) -> None:
        """Record the mean of a tensor of booleans or numbers, one an example, with the parameters it belongs to."""
        row = {"metric": metric, **parameters, "n": len(values), "value": values.double().mean().item()}
        self.rows.append(self.about | row)

    def add_each(self, **columns: Any) -> None:
        """Record columns (tensors or lists of equal length) row by row."""
        lists = {name: column.tolist() if hasattr(column, "tolist") else column for name, column in columns.items()}
        self.rows += [self.about | dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


@contextmanager
def evaluation(snakemake: Any) -> Iterator[Evaluation]:
    """Run a metric's script: what it adds to the evaluation becomes its record and provenance."""
    with job(snakemake):
        from dprobust import records

        measured = Evaluation(snakemake)
        yield measured
        p = snakemake.params
        records.write(Path(snakemake.output.record), measured.rows)
        records.write_provenance(
            Path(snakemake.output.provenance),
            {"settings": p.settings, "model": p.model, "size": p.size},
            map(Path, snakemake.input),
            unofficial_data=p.unofficial,
            device=str(measured.device),
            code=p.code,
        )
