"""Pre-train the convolutions of a network on public images, and compute features with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dprobust import arrays, records, seeds, training
from dprobust.models import networks
from dprobust.precision import full_float32
from dprobust.recipe import Training


def pretrain(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    features: Path,
    record: Path,
    dataset: str,
    device: torch.device,
) -> None:
    """Train a network on public images and write its convolutions (`dprobust.networks.split`) and a record.

    Args:
        spec: `dprobust.plan.Plan.pretrain`.
        inputs: `train` and `test`, arrays of the public dataset.
        features: where the convolutions go, safetensors.
        record: where the record goes, JSON.
        dataset: name of the dataset whose networks get them.
        device: where to train.
    """
    stream = ("pretraining", dataset)
    policy = full_float32()
    data, test = arrays.load(inputs["train"]), arrays.load(inputs["test"])
    if spec["train_size"]:
        drawn = torch.randperm(len(data), generator=seeds.generator(*stream, "examples")).numpy()
        data = data.take(drawn[: spec["train_size"]])
    settings = Training(**spec["training"])
    model = networks.build(
        spec["model"], data.shape, data.classes, seed=seeds.derive(*stream, "init"), dropout=spec["dropout"]
    ).to(device)
    checkpoint = features.with_name("checkpoint.safetensors")
    history = training.train(model, data, test, settings, stream, checkpoint, spec["code"])
    networks.save(networks.split(model)[0], features)
    records.write_provenance(
        record,
        {name: spec[name] for name in ("model", "dropout", "training")} | {"train_size": len(data)},
        inputs.values(),
        dataset=dataset,
        public=spec["public"],
        history=history,
        unofficial_data=spec["unofficial"],
        device=str(device),
        precision=policy,
        computed_in=str(training.computes_in(settings.precision, device)),
        code=spec["code"],
    )
    checkpoint.unlink(missing_ok=True)


def features(spec: Mapping[str, Any], inputs: Mapping[str, Path], output: Path, device: torch.device) -> None:
    """Write what pre-trained convolutions make of a dataset's images in use, with the labels.

    Args:
        spec: `dprobust.plan.Plan.features`.
        inputs: `features`, the convolutions, and `images`, arrays.
        output: arrays of features (`dprobust.arrays`).
        device: where to compute.
    """
    full_float32()
    data = arrays.load(inputs["images"]).drawn(spec["size"], spec["draw"])
    model = networks.build(spec["model"], data.shape, data.classes)
    networks.load_features(model, inputs["features"])
    images = torch.from_numpy(data.images)
    images = images.flip(-1) if spec["view"] == "mirrored" else images
    found = networks.compute_features(networks.split(model)[0].to(device), images)
    arrays.save(output, found.numpy(), data.labels, data.classes, shape=data.shape)
