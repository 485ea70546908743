"""Measure a metric of one trained model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dprobust import arrays, records, weights
from dprobust.measuring import Images
from dprobust.models import networks
from dprobust.precision import full_float32
from dprobust.registry import load


def measure(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    record: Path,
    images: Path,
    provenance: Path,
    about: Mapping[str, str],
    device: torch.device,
) -> None:
    """Measure a metric and write its record, an array for every image, and the provenance.

    Args:
        spec: `dprobust.plan.Plan.measure`.
        inputs: `model`, parameters or a network trained elsewhere; `test`, arrays; where the metric asks for them
            `trained`, the record of the training, and `train`, arrays; `needs_NAME`, what else the metric needs.
        record: where the rows go, CSV.
        images: where the arrays go, npz.
        provenance: where the provenance goes, JSON.
        about: dataset, run, seed.
        device: where to measure.
    """
    policy = full_float32()
    whole = arrays.load(inputs["test"])
    settings = load(f"{spec['package']}.settings").Metric(**spec["settings"])
    shape, classes = whole.shape, whole.classes
    if spec["weights"]:
        model = weights.load(inputs["model"], spec["model"], shape, classes, device)
    else:
        model = networks.load(inputs["model"], spec["model"], shape, classes, device)
    model = networks.with_temperature(model, spec["temperature"]).to(memory_format=torch.channels_last)
    given = chosen(whole, spec, settings.images, about, inputs)
    measured = load(f"{spec['package']}.measure").measure(model, given, settings)
    records.write(record, (dict(about) | row for row in measured.rows))
    kept = {name: np.asarray(values) for name, values in measured.arrays.items()}
    labels = given.y.numpy().astype(np.uint8 if classes <= 256 else np.int64)
    records.write_arrays(images, {"index": given.index.numpy(), "label": labels} | kept)
    records.write_provenance(
        provenance,
        {name: spec[name] for name in ("settings", "model", "temperature", "size")},
        inputs.values(),
        unofficial_data=spec["unofficial"],
        device=str(device),
        precision=policy,
        code=spec["code"],
    )


def chosen(
    whole: arrays.Split, spec: Mapping[str, Any], n: int | None, about: Mapping[str, str], inputs: Mapping[str, Path]
) -> Images:
    """The first `n` of the study's draw of the test images in use; all of them if `n` is None."""
    drawn = arrays.draw(len(whole), spec["size"], spec["draw"])[:n]
    index = np.sort(drawn)
    part = whole.take(index)
    return Images(
        x=networks.unit(torch.from_numpy(part.images)),
        y=torch.from_numpy(part.labels),
        index=torch.from_numpy(index),
        order=torch.from_numpy(np.searchsorted(index, drawn)),
        about=about,
        needs={name.removeprefix("needs_"): path for name, path in inputs.items() if name.startswith("needs_")},
        trained=records.read_json(inputs["trained"]) if "trained" in inputs else None,
        train=(lambda: arrays.load(inputs["train"]).drawn(**spec["train"])) if "train" in inputs else None,
    )
