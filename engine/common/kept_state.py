"""What a stopped job keeps for the next one. A damaged file never stands in the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from retinart.engine.common.progress import Progress
from retinart.engine.common.typed_json import NewerFile
from retinart.engine.errors import BadInput

T = TypeVar("T")


def read_or_set_aside(path: Path, read: Callable[[Path], T], otherwise: str) -> T | None:
    """What a file holds; None where it is missing or damaged.

    A damaged file gets the name `FILE.broken`, which replaces an earlier one, and a line on stderr
    says so.

    Args:
        read: reads the file, or raises BadInput.
        otherwise: what happens without the file, for the line.

    Raises:
        BadInput: a newer version of retinart wrote the file.
        OSError: the damaged file cannot be renamed.
    """
    if not path.exists():
        return None
    try:
        return read(path)
    except NewerFile:
        raise
    except BadInput as error:
        broken = path.with_name(f"{path.name}.broken")
        path.replace(broken)
        why = error.why or error.what
        Progress().line(f"{path} cannot be used ({why}): it is {broken.name} now, and {otherwise}")
        return None


def content_sha256(content: Any) -> str:
    """A hash of JSON's types, which the file that holds them carries."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
