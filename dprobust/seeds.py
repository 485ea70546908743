"""Random streams: each stage draws from generators of its own, derived from names and nothing else; and secret ones.

A training is named by its seed and a digest of all that defines it (`stream`). Two trainings that differ in anything,
the start or a learning rate, share no noise: else who has both models subtracts one from the other, and the noise is
gone. Nor do they share batches: what is known of the privacy of two models together takes their samples as independent.
Trainings that are to share them say so: those of a group (`dprobust.recipe.Training.coupled`) are named by seed, group
and data alone.

A torch generator on the CPU (mt19937) uses the lowest 32 bits of its seed: s and s + 2^32 give one stream. Two names
share one with probability 2^-32, and of k names some two do with at most k^2 / 2^33. CUDA generators use all 63 bits,
`normal_generator` 128. Whoever knows the names can draw all of them again; nobody can draw `secret` ones again.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

UNDEFINING = ("device", "code", "unofficial", "together", "reach")
"""What a specification holds that is no part of what a training is: where it runs, how it is programmed, what its
record is labelled with, where a number among its settings comes from."""


def stream(seed: object, spec: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the random streams of a training: its seed, and 16 hexadecimal digits for all that defines it.

    Device and code leave them as they are, and so do the test images, which nothing is chosen by.

    Args:
        seed: tells apart repetitions of one training.
        spec: `dprobust.plan.Plan.train`, with an `epsilon` turned into sigma and an `accuracy_of` into an accuracy;
            settings that are as by default left out, so that a new setting leaves the streams of old trainings alone.
    """
    told = _defining(spec)
    if told["pretrained"] is not None:
        told["pretrained"] = _defining(told["pretrained"])
    for name in ("draws", "sizes"):
        told[name] = told[name]["train"]
    training = dict(told["training"])
    group = training.pop("coupled", None)
    told["training"] = training
    if group:
        told = {"coupled": group} | {name: told[name] for name in ("data", "pretrained", "draws", "sizes")}
    return str(seed), hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _defining(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in UNDEFINING}


def derive(*parts: object) -> int:
    """A seed from the names of a stream, for example ``derive(seed, run, "noise")``: 63 bits, of which a generator on
    the CPU uses the lowest 32."""
    return int.from_bytes(_digest(*parts)[:8], "big") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by `derive`."""
    return torch.Generator(device).manual_seed(derive(*parts))


def normal_generator(*parts: object) -> np.random.Generator:
    """NumPy's generator, for many normal numbers on the CPU, seeded by 128 bits of the names (SFC64)."""
    return np.random.Generator(np.random.SFC64(int.from_bytes(_digest(*parts)[:16], "big")))


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()


def secret_normal_generator() -> np.random.Generator:
    """NumPy's generator on AES-128 in counter mode, under a key of 128 bits from the operating system."""
    from randomgen import AESCounter  # few trainings need it

    return np.random.Generator(AESCounter(key=secrets.randbits(128)))


def secret_generator() -> torch.Generator:
    """A torch generator on the CPU whose whole state, 624 words of 32 bits, comes from the operating system.

    A seed would be one of 2^32, which can be tried one by one. The generator (mt19937) is none of a cipher's: its
    numbers must not be published.
    """
    random = torch.Generator()
    state = random.get_state().numpy()
    # The state of torch: seed (8 bytes), counters (16), then the words, each in 8 bytes.
    words = state[24 : 24 + 8 * 624].view(np.uint64)
    words[:] = np.frombuffer(secrets.token_bytes(4 * 624), np.uint32)
    random.set_state(torch.from_numpy(state))
    return random
