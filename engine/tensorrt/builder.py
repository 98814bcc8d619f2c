"""The function that builds engines. `export` has it, and `retinart/__init__.py` names it here.

`export` stands above this folder, so nothing here may import it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Show: TypeAlias = Callable[[float, str], None]  # the part that is done, and TensorRT's phase
Build: TypeAlias = Callable[[Path, Path, int, Show], None]  # ONNX file, engine, number of the GPU

_builders: list[Build] = []


def set_builder(build: Build) -> None:
    """Name the function that builds."""
    _builders[:] = [build]


def build_engine(model: Path, engine: Path, gpu: int, show: Show) -> None:
    """Build an engine of an ONNX file, for a GPU of this machine."""
    (build,) = _builders
    build(model, engine, gpu, show)
