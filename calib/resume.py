"""The results of a job so far, in one hidden JSON file beside its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retinart.engine.common.files import write_json


class Saved:
    """Results by name, written as they come, so that a job that was stopped can go on.

    Args:
        path: the file, which need not exist.
        key: identifies the job. Results of another job in the file are ignored.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._content: dict[str, Any] = {"key": key}
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("key") == key:
                self._content = content

    def get(self, name: str) -> Any:
        """The value that was saved under a name, in JSON's types, or None."""
        return self._content.get(name)

    def set(self, name: str, value: Any) -> None:
        """Save a value of JSON's types, on disk as well."""
        self._content[name] = value
        write_json(self._path, self._content)

    def remove(self) -> None:
        """Remove the file: the job is done."""
        self._path.unlink(missing_ok=True)
