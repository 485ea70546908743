"""Random streams: each stage draws from generators of its own, derived from names and nothing else.

A generator on the CPU (mt19937) uses the lowest 32 bits of its seed: s and s + 2^32 give one stream. Two names share a
stream with probability 2^-32, and of k names some two do with at most k^2 / 2^33. Noise of 2^32 possible streams is
right for experiments; a private model that is given away needs noise whose seeds nobody can try. CUDA generators use
all 63 bits.
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
