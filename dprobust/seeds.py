"""Random streams: each stage draws from generators of its own, derived from names and nothing else.

A generator on the CPU (mt19937) uses the lowest 32 bits of its seed: seeds that agree in them give one stream. Two
streams of different names so coincide with probability 2^-32, some of k streams with at most k^2 / 2^33; and whoever
knows all else about a training can try all its seeds. CUDA generators use all 63 bits.
"""

import hashlib

import torch


def derive(*parts: object) -> int:
    """A seed from the names of a stream, for example ``derive(seed, run, "noise")``: 63 bits, of which a generator on
    the CPU uses the lowest 32."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by `derive`."""
    return torch.Generator(device).manual_seed(derive(*parts))
