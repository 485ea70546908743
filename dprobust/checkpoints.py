"""Checkpoints: tensors and JSON state in one safetensors file that is whole, ours, or ignored."""

import hashlib
import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
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
    metadata = {"identity": identity, "state": text, "digest": _digest(tensors, text)}
    with replaced(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load(path: Path, identity: str) -> tuple[dict[str, Tensor], dict] | None:
    """Read a checkpoint; None if there is none, if it is damaged, or if it belongs to something else."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): starting over", path, error)
        return None
    if metadata.get("identity") != identity:
        logger.info("%s belongs to other settings, data or code: starting over", path)
        return None
    if metadata.get("digest") != _digest(tensors, metadata["state"]):
        logger.warning("%s is damaged (its digest is wrong): starting over", path)
        return None
    return tensors, json.loads(metadata["state"])


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
