"""Random streams: each stage draws from generators of its own, derived from names and nothing else."""

import hashlib

import torch


def derive(*parts: object) -> int:
    """A 63-bit seed from the names of a stream, for example ``derive(seed, run, "noise")``."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by `derive`."""
    return torch.Generator(device).manual_seed(derive(*parts))
