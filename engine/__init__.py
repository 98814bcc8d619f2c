"""The runtime, and what all parts share. Needs NumPy, OpenCV and OpenVINO; never PyTorch."""

from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed, MissingDependency, RetinartError
from retinart.engine.model.info import ModelInfo, Thresholds, read_info

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
