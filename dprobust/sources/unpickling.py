"""Pickles of plain data and of integer arrays, read without running anything that they name.

An unpickler calls what a pickle tells it to call. This one knows four names, those that an array needs, and gives for
them stand-ins of its own: not even NumPy's constructors see anything from the file.
"""

import math
import pickle
from typing import Any, BinaryIO

import numpy as np

from dprobust.errors import UserError

DTYPES = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"}


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        self.code, self.order = _text(code), "|"
        if self.code not in DTYPES:
            raise UserError(f"forbidden dtype {self.code!r}, expected one of {', '.join(sorted(DTYPES))}")

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])
        if self.order not in ("|", "<", ">"):
            raise ValueError(f"byte order {self.order!r}")


class _Array:
    """Stands for an array that numpy.ndarray.__setstate__ fills."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise TypeError("an array of other than integers")
        flat = np.frombuffer(content, dtype.order + dtype.code)
        if min(shape, default=0) < 0 or math.prod(shape) != flat.size:
            raise ValueError(f"{flat.size} numbers for an array of shape {shape}")
        self.array = flat.reshape(shape, order="F" if fortran else "C")


_NDARRAY = "numpy.ndarray"


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _NDARRAY:
        raise UserError("numpy's _reconstruct of another class than numpy.ndarray is forbidden")
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UserError(f"_codecs.encode to {encoding!r} is forbidden, expected 'latin1'")
    return text.encode("latin1")


def _text(value: bytes | str) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


_STAND_INS = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}


# The one written in Python: the one in C reserves as much memory as a place in its memo that a pickle names asks for.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (found := _STAND_INS.get(f"{module}.{name}")) is None:
            raise UserError(f"forbidden global {f'{module}.{name}'!r}")
        return found


def unpickle_dict(stream: BinaryIO) -> dict[Any, Any]:
    """Read a pickled dict of ints, strings, bytes, lists, dicts, and arrays of integers.

    Strings of Python 2 come as bytes. Arrays are those that are values of the dict; they are read-only.

    Raises:
        UserError: the pickle names a global or a dtype that no such array needs, or is not a dict, or is broken.
    """
    try:
        found = _Unpickler(stream, encoding="bytes").load()
        if type(found) is not dict:
            raise TypeError(f"{type(found).__name__}, expected a dict")
        return {key: value.array if isinstance(value, _Array) else value for key, value in found.items()}
    except UserError as error:
        raise UserError(f"{error} in a pickle") from error
    # A forged stream can fail in any way that Python knows.
    except Exception as error:
        raise UserError(f"broken pickle ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error
