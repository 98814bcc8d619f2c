"""Pickles of NumPy arrays and plain containers, read without running any code of theirs.

A pickle may not even call NumPy's own constructors: they trust their arguments, and forged ones
crash the process. The stand-ins below take shapes, numeric types and bytes.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from retinart.train.model.pickle_check import check_pickle


def load_arrays(data: bytes) -> Any:
    """The content of a pickle, arrays as NumPy arrays; text of Python 2 is read as latin1.

    Raises:
        pickle.UnpicklingError: it asks for more than arrays of numbers or for more memory than it
            holds, or is damaged.
    """
    check_arrays(io.BytesIO(data), len(data))
    with _damage():
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load())


def check_arrays(file: BinaryIO, length: int) -> None:
    """Follow a pickle before all of it is in memory: a file with holes can be of any length.

    Raises:
        pickle.UnpicklingError: as `load_arrays`.
    """
    with _damage():
        check_pickle(file, length)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (pickle.UnpicklingError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle may raise any exception
        raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__}: {error})") from error


class _Type:
    """Stands in for numpy.dtype: fixed-size numbers only."""

    def __init__(self, spec: Any, *_: Any) -> None:
        found = re.fullmatch(r"[<>|=]?([fiub][1248])", spec) if isinstance(spec, str) else None
        if not found:
            raise pickle.UnpicklingError(f"it holds an array of type {spec!r}, not of numbers")
        self.value = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.value = self.value.newbyteorder(order)


class _Array:
    """Stands in for numpy.ndarray."""

    value: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.fill(raw, kind, shape, "F" if fortran else "C")

    def fill(self, raw: Any, kind: Any, shape: Any, order: Any) -> None:
        if not isinstance(kind, _Type):
            raise pickle.UnpicklingError("it holds an array without a numeric type")
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        flat = np.frombuffer(content, kind.value)
        self.value = flat.reshape([int(s) for s in shape], order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.fill(raw, kind, shape, order)
    return array


def _scalar(kind: Any, raw: Any = b"") -> _Array:
    return _from_buffer(raw, kind, (), "C")


def _encode(text: Any, _codec: Any = "latin1") -> bytes:
    return str(text).encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it wants to call {module}.{name}, which weights do not need"
            )
        return _STAND_INS[module, name]


def _plain(value: Any) -> Any:
    """The same with every stand-in replaced by its value."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
