"""A RetinaNet checkpoint becomes one file, and that file is a fast, trustworthy detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import retinart.engine as _engine
from retinart.engine.tensorrt import builder as _builder

if TYPE_CHECKING:
    from pathlib import Path as _Path

    from retinart.engine import (
        BadInput,
        CheckFailed,
        DetectBatch,
        Detections,
        Detector,
        Keep,
        MissingDependency,
        ModelInfo,
        RetinartError,
        Thresholds,
        Tiles,
        read_info,
    )

__all__ = [
    "BadInput",
    "CheckFailed",
    "DetectBatch",
    "Detections",
    "Detector",
    "Keep",
    "MissingDependency",
    "ModelInfo",
    "RetinartError",
    "Thresholds",
    "Tiles",
    "read_info",
]


def _build(model: _Path, engine: _Path, gpu: int, show: _builder.Show) -> None:
    try:
        from retinart.export.build import build_engine
        from retinart.export.settings import BuildSettings

        build_engine(model, engine, BuildSettings(device=gpu), show=show)
    except ModuleNotFoundError as error:
        raise _engine.MissingDependency.package(
            error.name or "onnx", "export", "Building an engine on first use"
        ) from error


_builder.set_builder(_build)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # which takes longer than all that is above

        return version("retinart")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_engine, name)


def __dir__() -> list[str]:
    return __all__
