"""Frozen dataclasses as JSON with a schema number, and back with the type of every field."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from retinart.engine.common.bounded_reading import check_plain, read_json
from retinart.engine.common.files import write_json
from retinart.engine.errors import BadInput, RetinartError

KEY = "schema"  # the number stands under it
_NAMES = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}


class NewerFile(BadInput):
    """A newer version of retinart wrote the file."""


class Versioned(Protocol):
    """A frozen dataclass that is kept as JSON.

    Its fields may be numbers, text, literals, paths, optional values, tuples, mappings by name, and
    other dataclasses.

    Attributes:
        SCHEMA: a number that each change of the fields raises.
        AGAIN: what the user can do when a file is older or damaged.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    SCHEMA: ClassVar[int]
    AGAIN: ClassVar[str]


T = TypeVar("T", bound=Versioned)
R = TypeVar("R")


def to_json(record: Versioned) -> dict[str, Any]:
    """The schema's number and a record's fields, in types that `json.dumps` knows."""
    return {KEY: record.SCHEMA, **dataclasses.asdict(record)}


def from_json(kind: type[T], data: object, name: str) -> T:
    """The record that `to_json` gave.

    Args:
        kind: of the record.
        data: what `json.loads` returned.
        name: of the file, for errors.

    Raises:
        BadInput: the file has another number or none, or as `from_plain`.
    """
    if not isinstance(data, dict) or type(data.get(KEY)) is not int:
        raise BadInput(
            f"{name} has no schema number",
            why=f"this version reads schema {kind.SCHEMA}, and files of version 0.1 have no number",
            fix=kind.AGAIN,
        )
    what = f"{name} has schema {data[KEY]}, and this version reads schema {kind.SCHEMA}"
    if data[KEY] > kind.SCHEMA:
        raise NewerFile(what, fix="Upgrade retinart")
    if data[KEY] < kind.SCHEMA:
        raise BadInput(what, fix=kind.AGAIN)
    fields = {k: v for k, v in data.items() if k != KEY}
    return from_plain(kind, fields, name, fix=kind.AGAIN)


def from_plain(
    kind: type[R], data: object, name: str, *, fix: str, verdict: str = "is damaged"
) -> R:
    """A record from plain values, without a schema's number.

    Args:
        kind: a dataclass as `Versioned` describes it. A field may also be of a class with a method
            `from_dict`.
        data: what `json.loads` returned.
        name: of the file, for errors.
        fix: what the user can do when the file is damaged.
        verdict: what an error says of a file that does not fit.

    Raises:
        BadInput: a field is missing, unknown, of another type or beyond its range.
    """
    try:
        check_plain(data)
        return cast(R, _value(kind, data, ""))
    except (_WrongField, ValueError) as error:
        raise BadInput(f"{name} {verdict}", why=str(error), fix=fix) from error


def write_typed(path: Path, record: Versioned) -> None:
    """Write a record; the file has its name once it is whole."""
    write_json(path, to_json(record), indent=1)


def read_typed(kind: type[T], path: Path) -> T:
    """The record that `write_typed` wrote.

    Raises:
        BadInput: as `from_json`, or the file cannot be read, or holds no JSON.
    """
    return from_json(kind, read_json(path, fix=kind.AGAIN), str(path))


class _WrongField(Exception):
    pass


def _fields(kind: Any, data: object, prefix: str) -> dict[str, Any]:
    """A dataclass's fields with their values."""
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise _wrong(prefix.rstrip("."), "an object", data)
    hints, values = get_type_hints(kind), dict[str, Any]()
    for field in dataclasses.fields(kind):
        if field.name in data:
            values[field.name] = _value(hints[field.name], data[field.name], prefix + field.name)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise _WrongField(f"the field {prefix}{field.name} is missing")
    for name in sorted(data.keys() - values.keys()):
        raise _WrongField(f"the field {prefix}{name} is not known to this version")
    return values


def _value(kind: Any, value: Any, field: str) -> Any:
    """A value as its field's type has it."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, kind):  # that was read already
            return value
        return _made(kind, _fields(kind, value, f"{field}." if field else ""), field)
    if hasattr(kind, "from_dict"):
        return _made(kind.from_dict, {"data": value}, field)
    if origin in (Union, types.UnionType):
        (some,) = (part for part in inner if part is not type(None))
        return None if value is None else _value(some, value, field)
    if origin is Literal:
        if not isinstance(value, str | int) or value not in inner:
            raise _wrong(field, f"one of {', '.join(map(str, inner))}", value)
        return value
    if origin in (tuple, Sequence):
        kinds = inner if origin is tuple and ... not in inner else None
        if not isinstance(value, list | tuple) or (kinds is not None and len(kinds) != len(value)):
            raise _wrong(field, f"a list of {len(kinds)}" if kinds else "a list", value)
        each = enumerate(zip(kinds or inner[:1] * len(value), value, strict=True))
        return tuple(_value(k, v, f"{field}[{i}]") for i, (k, v) in each)
    if origin in (dict, Mapping):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _wrong(field, "an object", value)
        return {key: _value(inner[1], v, f"{field}.{key}") for key, v in value.items()}
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return Path(value)
    allowed = (int, float) if kind is float else (kind,)
    if type(value) not in allowed:
        raise _wrong(field, _NAMES.get(kind, kind.__name__), value)
    return value


def _made(make: Any, arguments: dict[str, Any], field: str) -> Any:
    """What a class makes of checked fields; it may refuse a value that is beyond its range."""
    try:
        return make(**arguments)
    except RetinartError as error:
        why = str(error).rstrip(".")
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        why = str(error)
    raise _WrongField(f"{field}: {why}" if field else why)


def _wrong(field: str, wanted: str, value: object) -> _WrongField:
    try:
        shown = json.dumps(value, default=str)
    except TypeError:  # keys that are not text
        shown = str(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    where = f"the field {field}" if field else "the content"
    return _WrongField(f"{where} has to be {wanted}, and is {shown}")
