"""Names of tensors as templates, which are read in one project and written in another.

    "backbone.body.{rest}"  reads  "backbone.body.layer1.0.bn1.bias"
    "backbone.{rest}"       then writes  "backbone.layer1.0.bn1.bias"

A field's name decides what it may stand for.
"""

from __future__ import annotations

import re
from functools import cache

_FIELDS = {
    "rest": r".+",
    "key": r"\w+",  # of a module: weight, bias, running_mean, ...
    "NAME": r"\w+",  # chosen by the user
    "i": r"\d",
    "block": r"\d+",
    "part": r"conv1|bn1|layer\d",  # of a backbone
    "head": r"cls|box",
    "high": r"[67]",  # levels above them
    "first": r"[012]",  # the first three of a list, P3 to P5
}
_FIELD = re.compile(r"\{(\w+)\}")


def read(template: str, name: str) -> dict[str, str] | None:
    """What the fields of a template stand for in a name; None when it does not fit."""
    found = _pattern(template).fullmatch(name)
    return found.groupdict() if found else None


def write(template: str, fields: dict[str, str]) -> str:
    """A name by a template; a field without a value is written as its own name, such as NAME."""
    return _FIELD.sub(lambda field: fields.get(field[1], field[1]), template)


def rename(name: str, template: str, other: str) -> str | None:
    """A name that `template` reads, as `other` writes it; None when `template` does not fit."""
    fields = read(template, name)
    return None if fields is None else write(other, fields)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pieces = _FIELD.split(template)  # text, field, text, ...
    pattern = "".join(
        f"(?P<{piece}>{_FIELDS[piece]})" if index % 2 else re.escape(piece)
        for index, piece in enumerate(pieces)
    )
    return re.compile(pattern)
