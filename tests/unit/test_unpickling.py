"""What a pickle may hold, and that nothing it names runs."""

import builtins
import io
import os
import pickle
import tracemalloc

import cifar_archives
import numpy as np
import pytest

from dprobust.errors import UserError
from dprobust.sources.unpickling import DTYPES, unpickle_dict

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
VALUE = {b"data": ARRAY, b"labels": [0, 255, 70_000, -1], b"name": b"\xe4" * 300, b"nested": {b"a": [b"b", 1]}}


def unpickled(content):
    return unpickle_dict(io.BytesIO(content))


@pytest.mark.parametrize(
    "write", [cifar_archives.python2_pickle, *(lambda v, p=p: pickle.dumps(v, p) for p in (2, 3, 4))]
)
def test_plain_data_and_arrays(write):
    found = unpickled(write(VALUE))
    assert found[b"data"].dtype == np.uint8
    np.testing.assert_array_equal(found.pop(b"data"), ARRAY)
    assert found == {key: VALUE[key] for key in found} and len(found) == 3


def test_python_2_pickles_are_what_pickle_reads():
    """The fixtures' pickles, against the standard library as the dataset's page tells to use it."""
    content = cifar_archives.python2_pickle(VALUE)
    assert b"cnumpy.core.multiarray\n_reconstruct" in content and b"_codecs" not in content
    np.testing.assert_array_equal(pickle.loads(content, encoding="bytes")[b"data"], ARRAY)


@pytest.mark.parametrize("code", sorted(DTYPES))
@pytest.mark.parametrize("order", "<>")
def test_integer_arrays(code, order):
    array = np.arange(6, dtype=order + code).reshape(2, 3)
    for layout in (array, np.asfortranarray(array), array[:, ::2]):
        found = unpickled(pickle.dumps({"a": layout}, 2))["a"]
        assert found.dtype == layout.dtype
        np.testing.assert_array_equal(found, layout)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def ran(monkeypatch):
    """What was run in spite of all."""
    calls = []
    monkeypatch.setattr(os, "system", calls.append)
    monkeypatch.setattr(builtins, "eval", calls.append)
    return calls


GLOBALS = {
    "os.system": b"cos\nsystem\n(Vtrue\ntR",
    "posix.system": pickle.dumps(Call(os.system, "true"), 2)[2:-1],
    "builtins.eval": b"cbuiltins\neval\n(V1\ntR",
    "__builtin__.eval": b"c__builtin__\neval\n(V1\ntR",
    "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n",
    "numpy._core.numeric._frombuffer": b"cnumpy._core.numeric\n_frombuffer\n",
    "numpy.ndarray.fromfile": b"\x8c\x05numpy\x8c\x10ndarray.fromfile\x93",
    "numpy.core.multiarray.fromfile": b"(inumpy.core.multiarray\nfromfile\n",
    "_codecs.decode": b"c_codecs\ndecode\n",
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("name", "content"), GLOBALS.items(), ids=GLOBALS)
def test_a_forbidden_global_is_named_and_not_run(ran, name, content, nested):
    pickled = b"\x80\x04" + (b"}U\x04data](" + content + b"es." if nested else content + b".")
    with pytest.raises(UserError, match=f"forbidden global '{name}'"):
        unpickled(pickled)
    assert ran == []


def test_without_the_restriction_it_runs(monkeypatch):
    """The pickles of these tests are not merely broken."""
    calls = []
    monkeypatch.setattr(os, "system", calls.append)
    pickle.loads(b"\x80\x04" + GLOBALS["os.system"] + b".")
    assert calls == ["true"]


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY_OF = b"}U\x01a" + RECONSTRUCT + b"cnumpy\nndarray\nK\x00U\x01b\x87R"
STATE = b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x01xt"

ABUSES = {
    "object array": (pickle.dumps({"data": np.array([{}], object)}, 2), "forbidden dtype 'O8'"),
    "structured array": (pickle.dumps({"data": np.zeros(2, "u1,u1")}, 2), "forbidden dtype 'V2'"),
    "floats": (pickle.dumps({"data": np.zeros(2)}, 2), "forbidden dtype 'f8'"),
    "another class": (RECONSTRUCT + b"cnumpy\ndtype\n(K\x00tU\x01b\x87R.", "another class than numpy.ndarray"),
    "another encoding": (b"c_codecs\nencode\nVtext\nVhex\n\x86R.", "_codecs.encode to 'hex'"),
    "not text": (b"c_codecs\nencode\nK\x01U\x06latin1\x86R.", "_codecs.encode"),
    "call of an array": (RECONSTRUCT + b"cnumpy\nndarray\nK\x00U\x01b\x87R)R.", "broken pickle"),
    "state of the wrong size": (
        ARRAY_OF + STATE.replace(b"U\x01x", b"U\x02xy") + b"bs.",
        "2 numbers for an array of shape",
    ),
    "negative shape": (
        ARRAY_OF + STATE.replace(b"K\x01\x85", b"J\xff\xff\xff\xff\x85") + b"bs.",
        "for an array of shape",
    ),
    "never filled": (ARRAY_OF + b"s.", "broken pickle"),
    "state of a global": (b"c_codecs\nencode\n}U\x01aK\x01sb.", "expected a dict"),
    "class made without arguments": (b"cnumpy\ndtype\n)\x81.", "expected a dict"),
    "persistent id": (b"Pid\n.", "broken pickle"),
    "extension": (b"\x82\x01.", "broken pickle"),
    "a list": (b"].", "list, expected a dict"),
    "nothing": (b"", "broken pickle"),
    "cut off": (pickle.dumps(VALUE, 2)[:-20], "broken pickle"),
    "no stack": (b"0s.", "broken pickle"),
    "unhashable key": (b"}]K\x01s.", "broken pickle"),
    "giant string": (b"\x8e" + b"\xff" * 7 + b"\x7f.", "broken pickle"),
}


@pytest.mark.parametrize(("content", "message"), ABUSES.values(), ids=ABUSES)
def test_abuse_is_one_line(content, message):
    with pytest.raises(UserError, match=message) as error:
        unpickled(content)
    assert "\n" not in str(error.value)


def test_a_filled_array_is_read():
    """The hand-written state of the abuses is right but for the abuse."""
    assert unpickled(ARRAY_OF + STATE + b"bs.")[b"a"].tolist() == [ord("x")]


def test_a_place_in_the_memo_reserves_no_memory():
    tracemalloc.start()
    unpickled(b"}r\xff\xff\xff\x00.")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
