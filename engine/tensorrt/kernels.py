"""The CUDA kernels that the package holds: their source, and the PTX that `.ci/ptx` makes of it.

A driver compiles PTX for its own GPU, which has compute capability 7.5 or more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kernel = Literal["nms", "resize"]


def source_path(kernel: Kernel) -> Path:
    """Where the source lies."""
    return Path(__file__).with_name(f"{kernel}.cu")


def ptx_path(kernel: Kernel) -> Path:
    """Where the PTX lies."""
    return Path(__file__).with_name(f"{kernel}.ptx")
