"""Networks trained elsewhere, from a file: safetensors, a state_dict of torch.save, TorchScript, an exported program.

What a file is, is told by its content. No pickle is ever run. TorchScript and exported programs are programs, though:
load only those whose maker you trust.
"""

import copy
import io
import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dprobust.errors import UserError
from dprobust.models.networks import build, check, misfits, normalization, read
from dprobust.models.settings import Shape
from dprobust.models.trial import Contiguous, check_network, first_line

CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "module_state_dict", "model", "net")
"""Where a checkpoint keeps its state_dict; `module_state_dict` is Opacus'."""
PREFIXES = ("_module.", "module.", "_orig_mod.", "model.", "network.", "net.")
"""What Opacus, DistributedDataParallel, torch.compile and others put in front of every name."""


class Program(Contiguous):
    """A network that brings its code, TorchScript or an exported program, as a module like any other.

    It is measured, never trained: its parameters need no gradient, and its mode is evaluation whatever it is asked for.
    It computes where its parameters are, in the type of its input.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__(network)
        self.name = name
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        # A network whose parameters are constants has nothing else to tell where it is.
        self.register_buffer("place", torch.empty(0), persistent=False)
        for module in self.modules():
            module.training = False  # frozen TorchScript lacks it

    def __deepcopy__(self, memo: dict) -> "Program":
        return Program(copy.deepcopy(self.network, memo), self.name).to(self.place.device)

    def train(self, mode: bool = True) -> "Program":
        return self

    def forward(self, x: Tensor) -> Tensor:
        try:
            logits = super().forward(x.to(self.place.device))
        except (RuntimeError, AssertionError) as error:
            if x.dtype == torch.float32:
                raise
            raise UserError(self._told(x.dtype, first_line(error))) from None
        if isinstance(logits, Tensor) and logits.is_floating_point() and logits.dtype != x.dtype:
            raise UserError(self._told(x.dtype, f"its logits are {logits.dtype}"))
        return logits.to(x.device) if isinstance(logits, Tensor) else logits

    def _told(self, dtype: torch.dtype, reason: str) -> str:
        return (
            f"{self.name}: cannot compute in {str(dtype).removeprefix('torch.')} ({reason}); give its state_dict, or "
            "export it without constants or casts of a fixed type"
        )


def load(
    path: Path,
    model_settings: Mapping[str, Any],
    shape: Shape,
    classes: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A network from a file, in evaluation mode; it maps images in [0, 1] to logits.

    Tensors without code (safetensors, a state_dict) become parameters of the network that the settings name. The names
    must be its own; what Opacus and others put in front of them is taken off. A checkpoint is searched for its
    state_dict. Tensors ``normalize.mean`` and ``normalize.std``, if there, take the place of `normalize`. TorchScript
    and exported programs bring their network and take `normalize` from the settings only.

    Args:
        path: the file.
        model_settings: plain settings of the network, as for `dprobust.models.build`.
        shape: (C, H, W) of an image.
        classes: number of classes.
        device: where the network is to compute.

    Raises:
        UserError: a file of another kind, tensors that do not fit, or a network that does not return logits
            (N, classes), mixes the images of a batch, or lets no gradient through.
    """
    path = Path(path)
    try:
        kind = _kind(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if kind.program:
        program = Program(kind.read(path), str(path))
        layers = normalization(check(model_settings, shape)) | OrderedDict(model=program)
        model: nn.Module = nn.Sequential(layers)
    else:
        model = _filled(kind.read(path), path, model_settings, shape, classes)
    model.eval()
    check_network(model, shape, classes, str(path))
    return model.to(device)


# Kinds of files.


class _Kind(NamedTuple):
    read: Callable[[Path], Any]
    program: bool = False


def _kind(path: Path) -> _Kind:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head[:1] == b"\x80":
        return _Kind(_state_dict)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _Kind(read)
    told = "a Git LFS pointer, not the file itself: git lfs pull" if head.startswith(b"version https://git-lfs") else ""
    raise UserError(
        f"{path}: {told or 'neither safetensors, nor a file of torch.save, TorchScript or torch.export.save'}"
    )


def _zip_kind(path: Path) -> _Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
            whole = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: damaged ({error}); get the file again") from None
    if "serialized_exported_program.json" in whole:
        raise UserError(f"{path}: exported by torch 2.7 or older; export it again with this version")
    if "archive_format" in names:
        return _Kind(_exported, program=True)
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return _Kind(_torchscript, program=True)
    if "data.pkl" in names:
        return _Kind(_state_dict)
    raise UserError(f"{path}: a zip file, but not of torch.save, TorchScript or torch.export.save")


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        told = f"Python objects ({found[1]})" if found else "more than tensors"
        raise UserError(
            f"{path}: holds {told}, which would run code; save tensors alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except (RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); get the file again") from None
    for key in CHECKPOINT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise UserError(f"{path}: holds a {type(loaded).__name__}, expected a state_dict")
    other = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if other:
        raise UserError(
            f"{path}: not a state_dict: {other[0]} is a {type(loaded[other[0]]).__name__}; a checkpoint keeps it under "
            f"one of {', '.join(CHECKPOINT_KEYS)}"
        )
    return dict(loaded)


def _torchscript(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
            warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
            return torch.jit.load(path, map_location="cpu").float().eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: TorchScript that cannot be loaded ({first_line(error)})") from None


def _exported(path: Path) -> nn.Module:
    _check_exported(path)
    try:
        # Its module refuses eval(): the mode is the one it was exported in.
        return torch.export.load(io.BytesIO(path.read_bytes())).module().float()
    except Exception as error:  # of many kinds, by the version that wrote it
        raise UserError(f"{path}: exported program that cannot be loaded ({first_line(error)})") from None


def _check_exported(path: Path) -> None:
    """UserError if `torch.export.load` would unpickle objects or load compiled code."""
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        for name, member in files.items():
            if name.startswith("data/aotinductor/"):
                raise UserError(f"{path}: compiled by AOTInductor; save the program that torch.export.export gave")
            if name.endswith("_config.json") and name.startswith(("data/weights/", "data/constants/")):
                entries = json.loads(archive.read(member))["config"]
                pickled = [key for key, entry in entries.items() if entry["use_pickle"]]
            elif name.startswith("data/sample_inputs/"):
                pickled = [] if _plain(archive.read(member)) else ["its sample inputs"]
            else:
                pickled = [name] if name.startswith("data/") and name.endswith(".pt") else []
            if pickled:
                raise UserError(f"{path}: {pickled[0]} is a pickled object, which could run code; export it without")


def _plain(data: bytes) -> bool:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        return not data
    return True


# Networks.


def _filled(
    state: dict[str, Tensor], path: Path, settings: Mapping[str, Any], shape: Shape, classes: int
) -> nn.Sequential:
    for name, value in state.items():
        if value.is_quantized:
            raise UserError(f"{path}: {name} is quantised; give the network before quantisation")
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: {name} is not finite")
    network = build(settings, shape, classes)
    tried: list[tuple[nn.Module, dict[str, Tensor]]] = []
    for names in _unprefixed(state):
        if "normalize.mean" in names and "normalize.std" in names:
            own = {key: names[f"normalize.{key}"].flatten().tolist() for key in ("mean", "std")}
            network = build({**settings, "normalize": own}, shape, classes)
        for part in _parts(network):
            if not misfits(part, names):
                part.load_state_dict(names)
                return network
            tried.append((part, names))
    # An error tells of the reading that comes nearest.
    part, names = max(reversed(tried), key=lambda pair: len(pair[0].state_dict().keys() & pair[1].keys()))
    raise UserError(f"{path}: does not fit the network of the settings ({settings['name']}): {misfits(part, names)}")


def _unprefixed(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors by their names, then by those names without a prefix that all have, and so on."""
    found = [state]
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in found[-1])), None):
        found.append({name.removeprefix(prefix): value for name, value in found[-1].items()})
    return found


def _parts(network: nn.Sequential) -> list[nn.Module]:
    """What a state_dict may be of: the network, the network without the layers before it, a factory's module."""
    layers = dict(network.named_children())
    parts: list[nn.Module] = [network]
    if "normalize" in layers:
        parts.append(network[1:])
    if "model" in layers:
        model = layers["model"]
        parts.append(model.network if isinstance(model, Contiguous) else model)
    return parts
