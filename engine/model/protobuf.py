"""Protobuf's wire format, in a few lines and without a library."""

from __future__ import annotations

from collections.abc import Iterator

Value = int | memoryview  # of a field: a varint, or the bytes
_LONGEST = 1 << 16  # bytes of a list that is read
_GOES_ON = bytes(range(128, 256))  # bytes of a varint that others follow


def fields(view: memoryview, where: str) -> Iterator[tuple[int, Value]]:
    """A protobuf message's fields: number, and the varint or the bytes."""
    position, end = 0, len(view)
    while position < end:
        tag, position = _varint(view, position, where)
        tag, kind = tag >> 3, tag & 7
        if tag == 0 or kind not in (0, 1, 2, 5):
            raise ValueError(f"{where} is not a protobuf message")
        if kind == 0:
            value, position = _varint(view, position, where)
            yield tag, value
            continue
        length = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            length, position = _varint(view, position, where)
        if length > end - position:
            raise ValueError(f"{where} is truncated")
        yield tag, view[position : position + length]
        position += length


def _varint(view: memoryview, position: int, where: str) -> tuple[int, int]:
    """A number of 64 bits and the position behind it."""
    result = shift = 0
    for byte in view[position : position + 10]:
        result |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return result & (1 << 64) - 1, position + shift // 7
    if len(view) - position >= 10:
        raise ValueError(f"{where} is not a protobuf message")
    raise ValueError(f"{where} is truncated")


def count_numbers(value: Value) -> int:
    """How many numbers a repeated number has; of a list, each ends with a byte below 128."""
    if isinstance(value, int):
        return 1
    return len(bytes(value).translate(None, _GOES_ON))


def numbers(value: Value) -> list[int]:
    """A repeated number: one of it, or all packed. Long lists, as of values, are refused."""
    if isinstance(value, int):
        return [value]
    if len(value) > _LONGEST:
        raise ValueError(f"a list of {len(value):,} bytes is not one of dimensions")
    found, position = list[int](), 0
    while position < len(value):
        one, position = _varint(value, position, "a list of numbers")
        found.append(one)
    return found


def number(value: Value) -> int:
    """A field that has to be a number."""
    if not isinstance(value, int):
        raise ValueError("a number is missing")
    return value


def signed(value: int) -> int:
    """A varint as a number of 64 bits with a sign."""
    return value - (1 << 64) if value >= 1 << 63 else value


def as_bytes(value: Value) -> memoryview:
    """A field that has to be a message or a text."""
    if isinstance(value, int):
        raise ValueError("a part is missing")
    return value


def text(value: Value) -> str:
    """A field that has to be a text."""
    try:
        return bytes(as_bytes(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("a name is not UTF-8") from error


def message(tag: int, data: bytes) -> bytes:
    """A field with a length."""
    return _bytes_of(tag << 3 | 2) + _bytes_of(len(data)) + data


def _bytes_of(value: int) -> bytes:
    """A varint."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
