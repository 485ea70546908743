"""Measure a metric of one trained model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dprobust import arrays, records, weights
from dprobust.confidence import confidence, matching_temperature
from dprobust.inference import map_batches
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
            `trained`, the record of the training, and `train`, arrays; `needs_NAME`, what else the metric needs;
            `other_0`, ..., models of other runs that it asks for; `confident`, the model whose confidence is to be had.
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
    model = loaded(inputs["model"], spec, shape, classes, device)
    others = {
        other["run"]: loaded(inputs[f"other_{i}"], other, shape, classes, device)
        for i, other in enumerate(spec.get("others", []))
    }
    temperature, matched = spec["temperature"], {}
    if other := spec.get("confidence_of"):
        every = chosen(whole, spec, None, about, inputs).x
        wanted = confidence(logits(loaded(inputs["confident"], other, shape, classes, device), every))
        temperature = matching_temperature(logits(model, every), wanted)
        matched = {"matched": {"temperature": temperature, "confidence_of": other["run"], "confidence": wanted}}
    model = networks.with_temperature(model, temperature).to(memory_format=torch.channels_last)
    given = replace(chosen(whole, spec, settings.images, about, inputs), others=others)
    measured = load(f"{spec['package']}.measure").measure(model, given, settings)
    records.write(record, (dict(about) | row for row in measured.rows))
    kept = {name: np.asarray(values) for name, values in measured.arrays.items()}
    labels = given.y.numpy().astype(np.uint8 if classes <= 256 else np.int64)
    records.write_arrays(images, {"index": given.index.numpy(), "label": labels} | kept)
    records.write_provenance(
        provenance,
        {name: spec[name] for name in ("settings", "model", "size")} | {"temperature": temperature},
        inputs.values(),
        unofficial_data=spec["unofficial"],
        device=str(device),
        precision=policy,
        code=spec["code"],
        **matched,
    )


def loaded(
    path: Path, spec: Mapping[str, Any], shape: tuple[int, ...], classes: int, device: torch.device
) -> torch.nn.Module:
    """The network of a file, as `model` and `weights` of a specification say."""
    load_network = weights.load if spec["weights"] else networks.load
    return load_network(path, spec["model"], shape, classes, device)


def logits(model: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """What a model gives images, float64 (N, K)."""
    (found,) = map_batches(model, lambda images: (model(images),), 256, x)
    return found.double().cpu().numpy()


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
