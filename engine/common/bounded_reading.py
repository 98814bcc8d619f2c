"""Files of strangers, read within bounds: a device, an endless file or odd JSON is an error."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput

MIB = 1 << 20
TEXT = 64 * MIB  # no text file of retinart's own comes near it
DEPTH = 64  # of lists and objects in JSON
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_regular(path: Path, *, noun: str = "file", fix: str = "Check the path") -> int:
    """The size in bytes of a file that can be read whole.

    Args:
        noun: what the file should be, for the message.
        fix: what the user can do.

    Raises:
        BadInput: there is no such file, or it is a folder, a device, a pipe or a socket.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        why = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"cannot read the {noun} {path}", why=why, fix=fix) from error
    if kind := _kind(found.st_mode):
        why = f"it is {kind}"
        raise BadInput(f"cannot read the {noun} {path}", why=why, fix="Give a regular file")
    return found.st_size


def other_kind(path: Path) -> str:
    """Name what a path leads to, such as "a device"; "" for a regular file, or for nothing."""
    try:
        return _kind(path.stat().st_mode)
    except FileNotFoundError:
        return ""


def _kind(mode: int) -> str:
    return next((text for is_kind, text in _KINDS if is_kind(mode)), "")


def read_bytes(path: Path, *, noun: str = "file", most: int, fix: str = "Check the path") -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        BadInput: as `check_regular`, or the file is longer, or cannot be read.
    """
    what = f"cannot read the {noun} {path}"
    size = check_regular(path, noun=noun, fix=fix)
    if size > most:
        why = f"it has {size:,} bytes, and {most:,} are the most that is read"
        raise BadInput(what, why=why, fix=fix)
    try:
        with path.open("rb") as file:
            return file.read(size)  # not more, should it grow
    except OSError as error:
        raise BadInput(what, why=error.strerror or str(error), fix=fix) from error


def read_text(
    path: Path, *, noun: str = "file", most: int = TEXT, fix: str = "Check the path"
) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        BadInput: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, noun=noun, most=most, fix=fix).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"cannot read the {noun} {path}",
            why=f"its byte {error.start} is not UTF-8 text",
            fix=fix,
        ) from error


def read_json(path: Path, *, noun: str = "file", most: int = TEXT, fix: str) -> Any:
    """What a JSON file holds.

    Raises:
        BadInput: as `read_text`, or it is not strict JSON, see `parse_json`.
    """
    text = read_text(path, noun=noun, most=most, fix=fix)
    try:
        return parse_json(text)
    except ValueError as error:
        raise BadInput(f"{path} is not JSON", why=str(error), fix=fix) from error


def parse_json(text: str) -> Any:
    """The values of a JSON text.

    Raises:
        ValueError: it is not JSON, or holds something that `check_plain` refuses.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEPTH} deep") from error
    check_plain(value)
    return value


def check_plain(value: object) -> None:
    """Refuse what Python's JSON reader takes and other steps cannot use.

    That is NaN, infinity, whole numbers beyond 64 bits, half of a surrogate pair, and deep nesting.

    Raises:
        ValueError: with the reason.
    """
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        found, depth = waiting.pop()
        if isinstance(found, str):
            if not found.isascii():
                _check_text(found)
        elif isinstance(found, float):
            if not math.isfinite(found):
                raise ValueError(f"it holds {found}, which is not a finite number")
        elif isinstance(found, int):
            if not -(2**63) <= found < 2**63:
                raise ValueError("it holds a whole number of more than 64 bits")
        elif isinstance(found, dict | list | tuple):
            if depth == DEPTH:
                raise ValueError(f"it is nested more than {DEPTH} deep")
            if isinstance(found, dict):
                waiting += [(key, depth + 1) for key in found]
                found = found.values()
            waiting += [(inner, depth + 1) for inner in found]


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text {text[:40]!r} holds half of a surrogate pair, which is not a character"
        ) from error
