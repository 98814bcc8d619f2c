"""Protobuf's text format, of plain values; Triton's configuration is written in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


class Symbol(str):
    """A name of an enumeration: text that stands without quotes."""


def pbtxt(message: Mapping[str, Any], indent: str = "") -> str:
    """The text of a message.

    Args:
        message: fields by name, each a number, a truth value, a text, a message, or a list of one
            of them.
    """
    lines = []
    for name, value in message.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{name} {{\n{pbtxt(value, indent + '  ')}{indent}}}\n")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if any(isinstance(one, Mapping) for one in value):
                lines += [pbtxt({name: one}, indent) for one in value]
            else:
                lines.append(f"{indent}{name}: [{', '.join(map(_plain, value))}]\n")
        else:
            lines.append(f"{indent}{name}: {_plain(value)}\n")
    return "".join(lines)


def entries(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a map field."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _plain(value: Any) -> str:
    if isinstance(value, Symbol):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's escapes of ASCII text are protobuf's too, except \u, which only newer versions read
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
