"""Which code results are of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from retinart import engine

_FOLDERS = ("engine", "train", "export", "calib", "benchmarks/gpu")


def code_hash() -> str:
    """Of every source file that has a say in the results."""
    root, total = Path(engine.__file__).parent.parent, hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((root / folder).glob("*")):
            if path.suffix in (".py", ".cu"):
                total.update(f"{folder}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]
