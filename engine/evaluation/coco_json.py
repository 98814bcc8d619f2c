"""The JSON of COCO annotations: its text, its three lists, and the numbers and ids in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinart.engine.common.bounded_reading import MIB, check_plain, check_regular, read_bytes
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.problems import Problems

Id = int | float | str  # of an image or a category, as a file has it
Key = int | str  # what ids are compared by
Entry = Mapping[str, Any]

_LISTS = ("images", "annotations", "categories")
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_MOST = 4096 * MIB  # of a file
_MANY = 1 << 20  # lists and objects of a file
_SHORTEST = 8  # bytes for each of them, on average; an annotation's are longer
_LARGEST = 1e15  # of a number that stands for pixels
_FIX = "Give a COCO instances file, with the lists images, annotations and categories"


@dataclass(frozen=True, kw_only=True)
class Document:
    """The three lists of a COCO instances file."""

    images: Sequence[Entry]
    annotations: Sequence[Entry]
    categories: Sequence[Entry]


def read_document(path: Path, *, need_objects: bool = True) -> Document:
    """Read the JSON document, and check that its three lists hold objects.

    The text may be UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path: of the file.
        need_objects: refuse a file without `annotations`; otherwise it has none.

    Raises:
        BadInput: the file cannot be read, or it is not a COCO instances file.
    """
    what = f"cannot read the annotations {path}"
    _check_text(path)
    data = read_bytes(path, noun="annotations", most=_MOST)
    _check_density(data, what)
    try:
        document: Any = json.loads(data)
    except UnicodeDecodeError as error:
        raise BadInput(
            what, why="its text is neither UTF-8 nor UTF-16", fix="Save it as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(
            what,
            why=f"it is not JSON or was cut off ({error})",
            fix="Write or copy the file again",
        ) from error
    for name in _LISTS:  # of two lists Python keeps the last one
        if data.count(f'"{name}"'.encode()) > 1 and _is_twice(data, name):
            raise BadInput(
                f"{path} has the list {name!r} twice",
                why="only one of the two would be read",
                fix="Put their entries into one list",
            )
    if not need_objects and isinstance(document, dict):
        document.setdefault("annotations", [])
    if why := _why_another_format(document):
        raise BadInput(f"{path} is not a COCO instances file", why=why, fix=_FIX)
    if _is_lvis(document):
        raise BadInput(
            f"{path} is an LVIS file",
            why="its images are annotated for some of the classes only, so objects without a box "
            "would count as background, and COCO's AP says nothing about them",
            fix="Give COCO annotations; the package lvis measures on LVIS",
        )
    try:
        check_plain([document["images"], document["categories"]] if rb"\u" in data else [])
    except ValueError as error:
        raise BadInput(what, why=f"in its names, {error}", fix="Write the names again") from error
    return Document(**{name: document[name] for name in _LISTS})


def _check_text(path: Path) -> None:
    """Refuse a file with zeros, which no text has, before all of it is in memory.

    A file with holes reads as zeros, and can be far longer than what was written.
    """
    size, place = check_regular(path, noun="annotations"), 0
    if size > _MOST:
        return  # reading it says so
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
        zeros = b"\0" if encoding.startswith("utf-8") else bytes(8)  # of a NUL in UTF-16 or UTF-32
        file.seek(0)
        while block := file.read(MIB):
            if zeros in block:
                raise BadInput(
                    f"cannot read the annotations {path}",
                    why=f"it is not text: its byte {place + block.index(zeros)} is zero",
                    fix="Write or copy the file again",
                )
            place += len(block)


def _check_density(data: bytes, what: str) -> None:
    """Refuse what takes 20 times its length in memory: lists and objects that hold nothing."""
    opened = data.count(b"[") + data.count(b"{")
    if opened > _MANY and opened * _SHORTEST > len(data):
        raise BadInput(
            what,
            why=f"it has {opened:,} lists and objects in {len(data) / MIB:.0f} MiB, so nearly all "
            "of them are empty",
            fix="Write or copy the file again",
        )


def id_key(value: object) -> Key | None:
    """What an id is compared by: 1, 1.0 and "1" are one id, other text is an id as it stands.

    Returns:
        None for a value that is not an id: null, true, 1.5, NaN, an empty text, a list.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else text or None
    return None


def by_id(
    entries: Iterable[Entry], noun: str, name: str, path: Path, problems: Problems
) -> dict[Key, Entry]:
    """Entries by the key of their id; of equal entries the first one stays.

    Args:
        entries: of one list.
        noun: what they are, for errors.
        name: the field by which two entries of one id are the same thing.
        path: of the file, for errors.
        problems: is added to.

    Raises:
        BadInput: an entry has no id, or one id stands for two things.
    """
    found: dict[Key, Entry] = {}
    for position, entry in enumerate(entries):
        key = id_key(entry.get("id"))
        if key is None:
            given = f"the id {json.dumps(entry['id'])}" if "id" in entry else "no id"
            raise BadInput(
                f"{path} is not a COCO instances file",
                why=f"{noun} number {position} has {given}",
                fix=f"Give every {noun} a whole number as its id",
            )
        first = found.setdefault(key, entry)
        if first.get(name) != entry.get(name):
            raise BadInput(
                f"{path} gives the {noun} id {key} twice",
                why=f"to {first.get(name)} and to {entry.get(name)}, and nothing says which of "
                "them a box with this id belongs to",
                fix="Give the entries of each file other ids before you merge files",
            )
        if first is not entry:
            article = "an" if noun[0] in "aeiou" else "a"
            problems.add(f"entries that repeat {article} {noun}", "the first counts", f"id {key}")
    return found


def number(value: object) -> float | None:
    """A finite number, also one that is written as text; None for all else, true and false too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and abs(found) <= _LARGEST else None


def side(value: object) -> int | None:
    """A height or width in pixels, from 1 on; None for what is none, and for null and 0."""
    found = number(value)
    return int(found) if found is not None and found >= 1 and found.is_integer() else None


def is_crowd(entry: Entry, name: str, path: Path) -> bool:
    """Whether an annotation is a crowd: 1, true, "1" or "true". Without `iscrowd` it is none.

    Raises:
        BadInput: `iscrowd` is something else than a yes or a no.
    """
    value = entry.get("iscrowd")
    if value is None or isinstance(value, bool):
        return bool(value)
    words: dict[object, bool] = {"true": True, "false": False, "": False}
    text = value.strip().lower() if isinstance(value, str) else None
    found = words.get(text, number(value))
    if found not in (0, 1):
        raise BadInput(
            f"`iscrowd` of {name} in {path} is {json.dumps(value)}",
            why="a crowd counts neither as hit nor as miss, so the figures depend on it",
            fix="Give 0 or 1",
        )
    return bool(found)


def _why_another_format(document: Any) -> str:
    """Why a document is not COCO instances; empty where it is."""
    if isinstance(document, list):
        first = document[0] if document else None
        if isinstance(first, dict) and {"image_id", "score"} <= first.keys():
            return "it is a list of results, as detectors write them"
        return "it is a list, and has no list 'images'"
    if not isinstance(document, dict):
        return "it holds one value, and has no list 'images'"
    for name in _LISTS:
        if not isinstance(document.get(name), list):
            has = ", ".join(map(repr, list(document)[:5])) or "nothing"
            return f"it has no list {name!r}; it has {has}"
        if not all(isinstance(entry, dict) for entry in document[name]):
            return f"an entry of {name!r} is not an object"
    if any("segments_info" in entry for entry in document["annotations"][:1]):
        return "it holds panoptic segmentation, which has no box for each object"
    return ""


def _is_twice(data: bytes, name: str) -> bool:
    """Whether a JSON object has a list under one name twice."""
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice |= sum(key == name and isinstance(value, list) for key, value in pairs) > 1
        return dict(pairs)

    json.loads(data, object_pairs_hook=look)
    return twice


def _is_lvis(document: Mapping[str, Any]) -> bool:
    return any("not_exhaustive_category_ids" in entry for entry in document["images"][:1])
