"""The runtime, and what all parts share. Needs NumPy, OpenCV and OpenVINO; never PyTorch.

A name is loaded when it is first asked for (PEP 562), so `import retinart.engine.errors` loads
neither NumPy nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinart.engine.cluster.batches import DetectBatch
    from retinart.engine.detections import Detections
    from retinart.engine.detector import Detector
    from retinart.engine.errors import BadInput, CheckFailed, MissingDependency, RetinartError
    from retinart.engine.keep.rules import Keep
    from retinart.engine.model.info import ModelInfo, Thresholds, read_info
    from retinart.engine.tiles.grid import Tiles

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

_MODULES = {
    "DetectBatch": "retinart.engine.cluster.batches",
    "Detections": "retinart.engine.detections",
    "Detector": "retinart.engine.detector",
    "Keep": "retinart.engine.keep.rules",
    "ModelInfo": "retinart.engine.model.info",
    "Thresholds": "retinart.engine.model.info",
    "Tiles": "retinart.engine.tiles.grid",
    "read_info": "retinart.engine.model.info",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "retinart.engine.errors")), name)


def __dir__() -> list[str]:
    return __all__
