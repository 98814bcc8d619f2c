"""The user's cache folder: what a machine found out once and need not find out again."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def user_cache(kind: str) -> Path | None:
    """A folder of `retinart` in the user's caches; None where it cannot be written.

    The caches lie in `$XDG_CACHE_HOME`, or else in `~/.cache`. Our folder there is made if need be.

    Args:
        kind: the folder's name in ours, for what is kept there; it may not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "retinart"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home
        return None
    return folder / kind if os.access(folder, os.W_OK) else None


def remove_oldest(folder: Path, suffix: str, largest: int) -> None:
    """Remove what was not used for longest, until the rest has `largest` bytes.

    Args:
        folder: of the files.
        suffix: of the files that count; others of the same stem go with them.
        largest: of all these files together.
    """
    files = []
    for path in folder.glob(f"*{suffix}"):
        with suppress(OSError):  # another process removed it
            state = path.stat()
            files.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= largest:
            return
        for name in folder.glob(f"{path.stem}.*"):
            with suppress(OSError):
                name.unlink()
        total -= size


class Remembered:
    """Facts that hold on this machine, one small file each.

    Args:
        kind: of the facts: a folder in the user's cache.
    """

    def __init__(self, kind: str) -> None:
        self._folder = user_cache(kind)

    def get(self, *key: Any) -> str | None:
        """What was said of a key, which is plain JSON; None if nothing was, or cannot be read."""
        try:
            return self._path(*key).read_text(encoding="utf-8") or None  # "" of a full disk
        except (OSError, UnicodeDecodeError):
            return None

    def set(self, text: str, *key: Any) -> None:
        """Keep a text for a key. Where it cannot be written, it is forgotten."""
        try:
            path = self._path(*key)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            return

    def _path(self, *key: Any) -> Path:
        if self._folder is None:
            raise FileNotFoundError("there is no cache folder")
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self._folder / f"{digest[:32]}.txt"
