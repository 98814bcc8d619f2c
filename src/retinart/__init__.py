"""A RetinaNet checkpoint becomes one file, and that file is a fast, trustworthy detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import retinart.engine as _engine

if TYPE_CHECKING:
    from retinart.engine import (
        BadInput,
        CheckFailed,
        Detections,
        Detector,
        Keep,
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
    "Keep",
    "MissingDependency",
    "ModelInfo",
    "RetinartError",
    "Thresholds",
    "read_info",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_engine, name)


def __dir__() -> list[str]:
    return __all__
