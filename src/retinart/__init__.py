"""A RetinaNet checkpoint becomes one file, and that file is a fast, trustworthy detector."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinart.engine import (
        BadInput,
        CheckFailed,
        Detections,
        Detector,
        MissingDependency,
        ModelInfo,
        RetinartError,
        Thresholds,
        read_info,
    )

__all__ = [
    "BadInput",
    "CheckFailed",
    "Detections",
    "Detector",
    "MissingDependency",
    "ModelInfo",
    "RetinartError",
    "Thresholds",
    "read_info",
]


def __getattr__(name: str) -> Any:
    """Load the engine when one of its names is first asked for, so that --help stays quick."""
    if name in __all__:
        return getattr(import_module("retinart.engine"), name)
    raise AttributeError(f"module 'retinart' has no attribute {name!r}")
