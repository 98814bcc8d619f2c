"""Hashes of our own sources, which tell results of other code from results of this code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from retinart.engine.common.files import sha256

_ROOT = Path(__file__).resolve().parents[2]
# The sources that make and run models. Those that only draw a page are left out, so that a page can
# be drawn again without its measurement.
MODELS = ("engine", "export", "calib", "train/model")
_DRAW = (
    "engine/common/html_page.py", "engine/common/table.py", "calib/report.py", "calib/tables.py",
)  # fmt: skip
# those that time models, and those that verify them on a GPU
TIMING = ("benchmarks/timing", "benchmarks/peers", "benchmarks/latency/run.py")
GPU = (
    "engine", "train", "export", "calib", "verify", "benchmarks/timing/worker.py",
    "benchmarks/timing/alternate.py",
)  # fmt: skip


def code_hash(parts: Sequence[str], root: Path = _ROOT) -> str:
    """A hash of sources.

    Args:
        parts: files, and folders with everything below them.
        root: folder of our packages.
    """
    paths = [path for part in parts for path in (root / part, *(root / part).rglob("*"))]
    drawing = [root / name for name in _DRAW]
    kept = (p for p in paths if p.suffix in (".py", ".cu") and p not in drawing)
    return hash_of(sorted(kept))


def hash_of(paths: Sequence[Path]) -> str:
    """A hash of files' names and contents."""
    return hashlib.sha256("".join(f"{p.name} {sha256(p)}\n" for p in paths).encode()).hexdigest()
