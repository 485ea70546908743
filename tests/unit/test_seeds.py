"""Random streams: fixed by their names, on every machine and in every version."""

import hashlib

import pytest
import torch

from dprobust.seeds import derive, generator


def drawn(random, n=4):
    return torch.randint(2**31, (n,), generator=random).tolist()


def test_a_seed_is_the_hash_of_its_names():
    expected = int(hashlib.sha256(b"0/mnist/sgd/noise").hexdigest()[:16], 16) >> 1
    assert derive(0, "mnist", "sgd", "noise") == derive("0", "mnist", "sgd", "noise") == expected < 2**63


def test_streams_of_other_names_are_others():
    names = [("a",), ("b",), ("a", "b"), ("a", 0), ("a", 1)]
    assert len({tuple(drawn(generator(*name))) for name in names}) == len(names)
    assert drawn(generator("a")) == drawn(generator("a"))


def test_a_generator_leaves_the_global_one_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    generator("a")
    assert torch.rand(1) == expected


@pytest.mark.parametrize("seed", [0, derive("a")])
def test_the_cpu_uses_32_bits_of_a_seed(seed):
    """As the docstring says; were it otherwise, it would have to say so."""
    one, same, other = (drawn(torch.Generator().manual_seed(s % 2**63)) for s in (seed, seed + 2**32, seed + 1))
    assert one == same != other
