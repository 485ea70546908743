"""Train one run with one seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dprobust import arrays, records, seeds, training
from dprobust.models import networks
from dprobust.precision import full_float32
from dprobust.recipe import COUPLED, RANDOMNESS, Training
from dprobust.registry import load


def train(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    output: Path,
    record: Path,
    about: Mapping[str, str],
    device: torch.device,
) -> None:
    """Train a network and write its parameters and a record of its training.

    Args:
        spec: `dprobust.plan.Plan.train`.
        inputs: `train` and `test`, arrays; where the convolutions are pre-trained, these are features, `features` are
            the convolutions, and `mirrored` the features of the mirror images of a run that flips.
        output: where the parameters go, safetensors; the checkpoint of an unfinished training lies beside it.
        record: where the record goes, JSON.
        about: dataset, run, seed; the random streams are named by the seed and what defines the training.
        device: where to train.
    """
    policy = full_float32()
    data, test = arrays.load(inputs["train"]), arrays.load(inputs["test"])
    if "features" not in inputs:  # features are those of the images in use
        data = data.drawn(spec["sizes"]["train"], spec["draws"]["train"])
        test = test.drawn(spec["sizes"]["test"], spec["draws"]["test"])
    if "mirrored" in inputs:
        mirrored = arrays.load(inputs["mirrored"]).images
        data = arrays.Split(np.stack([data.images, mirrored], axis=1), data.labels, data.classes, data.shape)
    settings = Training(**spec["training"])
    if settings.epsilon is not None:  # by its name: what accounts is not what trains a run of a given sigma
        settings = load("dprobust.privacy").resolve(settings, len(data))
    stream = seeds.stream(about["seed"], {**spec, "training": settings.plain()})
    model = networks.build(spec["model"], data.shape, data.classes, seed=seeds.derive(*stream, "init"))
    if "features" in inputs:
        networks.load_features(model, inputs["features"])
    trained = (networks.split(model)[1] if "features" in inputs else model).to(device)
    checkpoint = output.with_name("checkpoint.safetensors")
    history = training.train(trained, data, test, settings, stream, checkpoint, spec["code"])
    networks.save(model, output)
    records.write_provenance(
        record,
        {"model": spec["model"], "training": settings.plain(), "asked": spec["training"], **spec["sizes"]},
        inputs.values(),
        **about,
        stream=list(stream),
        mechanism=settings.mechanism(settings.trained_on(len(data))),
        randomness={"source": settings.randomness, "meaning": RANDOMNESS[settings.randomness]},
        coupled={"group": settings.coupled, "meaning": COUPLED} if settings.coupled else None,
        history=history,
        unofficial_data=spec["unofficial"],
        device=str(device),
        precision=policy,
        code=spec["code"],
    )
    checkpoint.unlink(missing_ok=True)
