"""Train one run with one seed, or several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dprobust import arrays, records, seeds, together, training
from dprobust.errors import UserError
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
            the convolutions, and `mirrored` the features of the mirror images of a run that flips; `reach`, the record
            of the training whose accuracy is the one to stop at.
        output: where the parameters go, safetensors; the checkpoint of an unfinished training lies beside it.
        record: where the record goes, JSON.
        about: dataset, run, seed; the random streams are named by the seed and what defines the training.
        device: where to train.
    """
    policy = full_float32()
    data, test = _examples(spec, inputs)
    settings, stream, model, trained = _prepared(spec, inputs, about, data, device)
    checkpoint = output.with_name("checkpoint.safetensors")
    history = training.train(trained, data, test, settings, stream, checkpoint, spec["code"])
    networks.save(model, output)
    _write(record, spec, inputs, about, settings, stream, len(data), history, device, policy)
    checkpoint.unlink(missing_ok=True)


def train_together(
    specs: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Path],
    outputs: Sequence[Path],
    written: Sequence[Path],
    abouts: Sequence[Mapping[str, str]],
    device: torch.device,
) -> None:
    """Train networks of one shape side by side, and write of each what `train` writes.

    Args:
        specs, outputs, written, abouts: of each training as for `train`: specification, parameters, record, names. The
            checkpoint lies beside the first one's parameters.
        inputs: as for `train`, the same for all.
        device: where to train.
    """
    policy = full_float32()
    data, test = _examples(specs[0], inputs)
    each = [_prepared(spec, inputs, about, data, device) for spec, about in zip(specs, abouts, strict=True)]
    settings, streams, models, trained = zip(*each, strict=True)
    checkpoint = outputs[0].with_name("checkpoint-together.safetensors")
    histories = together.train_together(trained, data, test, settings, streams, checkpoint, specs[0]["code"])
    for spec, output, record, about, own, stream, model, history in zip(
        specs, outputs, written, abouts, settings, streams, models, histories, strict=True
    ):
        networks.save(model, output)
        _write(record, spec, inputs, about, own, stream, len(data), history, device, policy, together=len(specs))
    checkpoint.unlink(missing_ok=True)


def _examples(spec: Mapping[str, Any], inputs: Mapping[str, Path]) -> tuple[arrays.Split, arrays.Split]:
    """Training and test examples in use; of a run that flips, each training example with its mirror image."""
    data, test = arrays.load(inputs["train"]), arrays.load(inputs["test"])
    if "features" not in inputs:  # features are those of the images in use
        data = data.drawn(spec["sizes"]["train"], spec["draws"]["train"])
        test = test.drawn(spec["sizes"]["test"], spec["draws"]["test"])
    if "mirrored" in inputs:
        mirrored = arrays.load(inputs["mirrored"]).images
        data = arrays.Split(np.stack([data.images, mirrored], axis=1), data.labels, data.classes, data.shape)
    return data, test


def _prepared(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    about: Mapping[str, str],
    data: arrays.Split,
    device: torch.device,
) -> tuple[Training, tuple[str, str], nn.Sequential, nn.Sequential]:
    """Settings, random stream, network, and what of it is trained, on the device."""
    settings = Training(**spec["training"])
    if settings.epsilon is not None:  # by its name: what accounts is not what trains a run of a given sigma
        settings = load("dprobust.privacy").resolve(settings, len(data))
    if settings.stop and settings.stop.accuracy_of:
        settings = _reaching(settings, inputs["reach"])
    stream = seeds.stream(about["seed"], {**spec, "training": settings.brief()})
    model = networks.build(spec["model"], data.shape, data.classes, seed=seeds.derive(*stream, "init"))
    if "features" in inputs:
        networks.load_features(model, inputs["features"])
    return settings, stream, model, (networks.split(model)[1] if "features" in inputs else model).to(device)


def _reaching(settings: Training, record: Path) -> Training:
    """The settings with the accuracy that another training ended with to stop at."""
    accuracy = records.read_json(record)["history"][-1]["test_accuracy"]
    if not 0 < accuracy < 1:
        raise UserError(
            f"stop.accuracy_of: {settings.stop.accuracy_of} ends with accuracy {accuracy:g}: none to stop at"
        )
    stop = {**settings.stop.plain(), "accuracy_of": None, "accuracy": accuracy}
    return Training(**{**settings.plain(), "stop": stop})


def _write(
    record: Path,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    about: Mapping[str, str],
    settings: Training,
    stream: tuple[str, str],
    n: int,
    history: list[dict],
    device: torch.device,
    policy: Mapping[str, Any],
    **more: Any,
) -> None:
    """The record of a training on `n` examples."""
    records.write_provenance(
        record,
        {"model": spec["model"], "training": settings.plain(), "asked": spec["training"], **spec["sizes"]},
        inputs.values(),
        **about,
        stream=list(stream),
        mechanism=settings.mechanism(settings.trained_on(n)),
        randomness={"source": settings.randomness, "meaning": RANDOMNESS[settings.randomness]},
        coupled={"group": settings.coupled, "meaning": COUPLED} if settings.coupled else None,
        history=history,
        unofficial_data=spec["unofficial"],
        device=str(device),
        precision=policy,
        code=spec["code"],
        **more,
    )
