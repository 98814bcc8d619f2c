"""The results of a job so far, in one hidden JSON file beside its output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retinart.engine.common.bounded_reading import MIB, read_json
from retinart.engine.common.files import write_json
from retinart.engine.common.kept_state import content_sha256, read_or_set_aside
from retinart.engine.errors import BadInput

_MOST = 1024 * MIB


class Saved:
    """Results by name, written as they come, so that a job that was stopped can go on.

    Args:
        path: the file, which need not exist.
        key: identifies the job. Results of another job in the file are ignored.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._content: dict[str, Any] = {"key": key}
        content = read_or_set_aside(path, _read, "the calibration begins anew")
        if content is not None and content.get("key") == key:
            self._content = content

    def get(self, name: str) -> Any:
        """The value that was saved under a name, in JSON's types, or None."""
        return self._content.get(name)

    def set(self, name: str, value: Any) -> None:
        """Save a value of JSON's types, on disk as well."""
        self._content[name] = value
        digest = content_sha256(self._content)
        write_json(self._path, {"sha256": digest, "content": self._content})

    def remove(self) -> None:
        """Remove the file: the job is done."""
        self._path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path, most=_MOST, fix="Delete it")
    if not isinstance(found, dict) or not isinstance(content := found.get("content"), dict):
        raise BadInput(f"{path} holds no results", why="it holds no results", fix="Delete it")
    if found.get("sha256") != content_sha256(content):
        why = "its content has another hash than it says"
        raise BadInput(f"{path} was changed", why=why, fix="Delete it")
    return content
