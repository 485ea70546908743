"""Checkpoints: tensors and JSON state in one safetensors file that is whole, ours, or ignored."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dprobust.files import replaced

logger = logging.getLogger(__name__)


def save(path: Path, tensors: dict[str, Tensor], state: dict, identity: str) -> None:
    """Write a checkpoint in one step.

    Args:
        path: the file; a reader sees the old or the new one, never a mixture.
        tensors: what to keep, by name.
        state: JSON values to keep.
        identity: what the checkpoint belongs to (settings, data, code); `load` gives it back to no one else.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(state)
    metadata = {"identity": identity, "state": text, "digest": digest(tensors, text)}
    with replaced(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load(path: Path, identity: str) -> tuple[dict[str, Tensor], dict] | None:
    """Read a checkpoint; None if there is none, if it is damaged in any way, or if it belongs to something else.

    Raises:
        OSError: the file is there and cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if (found := metadata["identity"]) == identity:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                if metadata["digest"] == digest(tensors, metadata["state"]):
                    return tensors, json.loads(metadata["state"])
    except OSError:
        raise
    except Exception as error:  # of any kind: a damaged header can say anything
        logger.warning("%s is damaged (%s: %s): starting over", path, type(error).__name__, error)
        return None
    if found != identity:
        logger.info("%s belongs to other settings, model, data or code: starting over", path)
    else:
        logger.warning("%s is damaged (its digest is wrong): starting over", path)
    return None


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of names, types, shapes and values, and of a text."""
    hashed = hashlib.sha256()
    # Lengths first, so that no part can pass for the end of another.
    hashed.update(f"{len(text.encode())} {len(tensors)} ".encode() + text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        hashed.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        hashed.update(value.view(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()
