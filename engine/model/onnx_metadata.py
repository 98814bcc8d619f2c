"""The metadata of an ONNX file, read with a few lines for protobuf's wire format."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO


def metadata_props(file: BinaryIO, size: int) -> Iterator[tuple[str, str]]:
    """Pairs of `metadata_props` (field 14 of ModelProto); other fields are skipped unread."""
    fields = set()
    while file.tell() < size:
        number, value = _field(file, size, wanted=14)
        fields.add(number)
        if number == 14:
            yield _entry(value)
    if not {1, 7} <= fields:  # ir_version and graph
        raise ValueError("it has no graph")


def _entry(data: bytes) -> tuple[str, str]:
    file, pair = io.BytesIO(data), {1: "", 2: ""}
    while file.tell() < len(data):
        number, value = _field(file, len(data), wanted=None)
        pair[number] = value.decode("utf-8")
    return pair[1], pair[2]


def _field(file: BinaryIO, size: int, wanted: int | None) -> tuple[int, bytes]:
    """The next field's number, and its bytes if it has a length and is wanted (None: always)."""
    tag = _varint(file)
    number, kind = tag >> 3, tag & 7
    if kind not in (0, 1, 2, 5) or number == 0:
        raise ValueError("its bytes are not a protobuf message")
    if kind == 0:
        _varint(file)
        return number, b""
    length = _varint(file) if kind == 2 else {1: 8, 5: 4}[kind]
    if file.tell() + length > size:
        raise EOFError("it is truncated")
    if wanted in (None, number):
        return number, file.read(length)
    file.seek(length, 1)
    return number, b""


def _varint(file: BinaryIO) -> int:
    result = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise EOFError("it is truncated or empty")
        result |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return result
        shift += 7
        if shift > 63:
            raise ValueError("its bytes are not a protobuf message")


def graph_sha256(file: BinaryIO, size: int) -> str:
    """The SHA-256 of the graph's bytes (field 7), which holds nodes and weights."""
    digest = hashlib.sha256()
    while file.tell() < size:
        number, value = _field(file, size, wanted=7)
        if number == 7:
            digest.update(value)
    return digest.hexdigest()


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """An ONNX file whose graph has more outputs.

    Protobuf merges a message that stands twice, so the outputs are appended as a second graph.

    Args:
        model: the file's bytes.
        names: tensors of the graph; those that are outputs already are left out by the caller.
    """
    values = b"".join(_message(12, _message(1, name.encode())) for name in names)
    return model + _message(7, values)


def _message(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return _bytes_of(number << 3 | 2) + _bytes_of(len(data)) + data


def _bytes_of(value: int) -> bytes:
    """A varint."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
