"""Where the pictures of an annotation file lie on this disk."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_DRIVE = re.compile(r"^[A-Za-z]:")
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class PictureFiles:
    """Finds pictures by the names that an annotation file gives them.

    A name that is a path below the folder is taken as it stands. Otherwise the name's end counts:
    of `C:\\data\\images\\a.jpg` first `data/images/a.jpg`, then `images/a.jpg`, then `a.jpg`. The
    letters' case, and whether an accent is a letter of its own, may differ.

    Args:
        where: the folder, or the only files that may be found.
    """

    def __init__(self, where: Path | Sequence[Path]) -> None:
        self._folder = where if isinstance(where, Path) else None
        self._known: dict[Path, dict[str, list[Path]]] = {}
        self._by_name: dict[str, list[Path]] = {}
        for path in () if isinstance(where, Path) else where:
            self._by_name.setdefault(_plain(path.name), []).append(path)

    def find(self, name: str) -> tuple[Path | None, bool]:
        """A picture, or None; and whether its path is the name as it stands."""
        if self._folder is None:
            return self._among_files(_parts(name)), True
        try:
            path = self._folder / name
            if path.is_file():
                return path, True
        except (OSError, ValueError):  # a name too long, or with a null character
            pass
        parts = _parts(name)
        for first in range(len(parts)):
            if found := self._below(self._folder, parts[first:]):
                return found, False
        return None, False

    def _among_files(self, parts: Sequence[str]) -> Path | None:
        """The one file whose end agrees longest with the name; None where several do."""
        if not parts:
            return None
        agree = [
            (agreement(path, parts), path) for path in self._by_name.get(_plain(parts[-1]), ())
        ]
        longest = max((count for count, _ in agree), default=0)
        best = [path for count, path in agree if count == longest]
        return best[0] if len(best) == 1 else None

    def _below(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """The file at a path below a folder, in any letter case; None if several files fit."""
        found = [folder]
        for part in parts:
            found = [path for parent in found for path in self._named(parent, part)]
        files = [path for path in found if path.is_file()]
        return files[0] if len(files) == 1 else None

    def _named(self, folder: Path, name: str) -> list[Path]:
        """The entries of a folder with a name: the one spelled so, or all that are alike."""
        if folder not in self._known:
            entries: dict[str, list[Path]] = {}
            for path in _entries(folder):
                entries.setdefault(_plain(path.name), []).append(path)
            self._known[folder] = entries
        alike = self._known[folder].get(_plain(name), [])
        return [path for path in alike if path.name == name] or alike


def picture_name(entry: Mapping[str, Any]) -> str:
    """The name that an entry of COCO's `images` gives its picture, or ""."""
    return str(entry.get("file_name") or entry.get("coco_url") or "")


def agreement(path: Path, parts: Sequence[str] | str) -> int:
    """How many parts at the end of a path and of a name are alike."""
    names = _parts(parts) if isinstance(parts, str) else parts
    count = 0
    for a, b in zip(reversed(path.absolute().parts), reversed(names), strict=False):
        if _plain(a) != _plain(b):
            break
        count += 1
    return count


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return ()


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _parts(name: str) -> list[str]:
    """The parts of a path, as Windows, an address or another computer writes it."""
    name = name.strip()
    if _ADDRESS.match(name):
        name = unquote(urlsplit(name).path)
    parts: list[str] = []
    for part in _DRIVE.sub("", name.replace("\\", "/")).split("/"):
        if part == "..":
            parts.clear()
        elif part not in ("", ".") and "\0" not in part:
            parts.append(part)
    return parts
