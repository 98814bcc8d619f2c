"""Which code results are of."""

from __future__ import annotations

from pathlib import Path

from retinart import engine
from retinart.benchmarks.timing.steps import hash_of

_FOLDERS = ("engine", "train", "export", "calib", "benchmarks/gpu")
_FILES = ("benchmarks/timing/isolated.py",)


def code_hash() -> str:
    """Of every source file that has a say in the results."""
    root = Path(engine.__file__).parent.parent
    found = [path for folder in _FOLDERS for path in sorted((root / folder).rglob("*"))]
    found += [root / name for name in _FILES]
    return hash_of([path for path in found if path.suffix in (".py", ".cu")])
