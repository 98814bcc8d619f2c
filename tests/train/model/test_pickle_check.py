"""A pickle is counted before it is built: bombs of each kind are refused, real pickles are not."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
import pytest

from retinart.train.model.pickle_check import check_pickle

UNICODE_4 = b"X\x01\x00\x00\x00a"


def _check(data: bytes) -> None:
    check_pickle(io.BytesIO(data), len(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_real_pickles_pass(protocol: int) -> None:
    names = ["disc", "ring"]
    content = {
        "weights": np.arange(10.0),
        "nested": {"x": [1, -2.5, (3, None, True)], "set": {"a", "b"}},
        "shared": [names] * 20,
        "text": "é" * 2000,
        "long": 2**70,
        "bytes": b"abc",
    }
    _check(pickle.dumps(content, protocol=protocol))


def _laughs(container: str, levels: int = 24) -> bytes:
    """A container of ten times the one before it, 24 times."""
    start = {"list": b"(lp%d\n", "tuple": b"(", "dict": b"(dp%d\n"}[container]
    data = b"]" + b"q\x00" if container == "tuple" else (start % 0)
    for level in range(1, levels):
        get = b"g%d\n" % (level - 1)
        if container == "tuple":
            data += b"0(" + get * 10 + b"tp%d\n" % level
        elif container == "list":
            data += b"0(" + get * 10 + b"lp%d\n" % level
        else:
            data += b"0(" + b"".join(b"I%d\n" % i + get for i in range(10)) + b"dp%d\n" % level
    return data + b"."


BOMBS: dict[str, bytes] = {
    "a large memo": b"]r\xff\xff\xff\x0f.",
    "a large memo, by number": b"(lp99999999\n.",
    "long bytes": b"\x8e" + struct.pack("<Q", 8 << 30) + b".",
    "long text": b"\x8d" + struct.pack("<Q", 8 << 30) + b".",
    "a long byte array": b"\x96" + struct.pack("<Q", 8 << 30) + b".",
    "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 8 << 30) + b"N.",
    "lists": _laughs("list"),
    "tuples": _laughs("tuple"),
    "dicts": _laughs("dict"),
    "deep lists": b"(" * 5000 + b"l" * 5000 + b".",
    "itself": b"]q\x00h\x00a.",
    "changed after it was used": b"]q\x00]q\x01h\x00ah\x000h\x00h\x01a.",
    "a tuple as a key": b"}(I1\ntI2\ns.",
    "a tuple in a set": b"\x8f((I1\nt\x90.",
    "long text again and again": (
        b"X" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"q\x00(" + b"h\x00" * 100 + b"l."
    ),
    "an extension": b"\x82\x01.",
    "another file": b"X\x01\x00\x00\x00aQ.",
    "code of Python 2": b"(ios\nsystem\n.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        _check(BOMBS[name])


@pytest.mark.parametrize(
    "damage",
    [b"", b".", b"a.", b"t.", b"h\x05.", b"(", b"]", b"]]", b"X\xff", b"}a.", b"\x85.", b"R."],
)
def test_damage_is_a_value_or_lookup_error(damage: bytes) -> None:
    with pytest.raises((ValueError, LookupError, pickle.UnpicklingError)):
        _check(damage)


def test_every_cut_of_a_pickle_is_damage() -> None:
    whole = pickle.dumps({"a": [1, 2, ("x", "y")], "b": {"c": 1.5}}, protocol=2)
    for end in range(len(whole)):
        with pytest.raises((ValueError, LookupError, pickle.UnpicklingError)):
            _check(whole[:end])


def test_identifiers_of_tensors_are_handed_over() -> None:
    seen: list[Any] = []
    data = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ."
    check_pickle(io.BytesIO(data), len(data), seen.append)
    assert seen == [["storage", "torch FloatStorage", "0", "cpu", 4]]
