"""The IR on OpenVINO, for Triton's Python backend and for KServe's predictor.

It needs openvino and numpy, and nothing else: no retinart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# It would report to a server, and write to the user's home.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


class Network:
    """A compiled graph; one thread at a time may call it.

    Args:
        folder: of model.xml and model.bin.
        properties: OpenVINO's, by name.

    Attributes:
        model: the `openvino.CompiledModel`.
    """

    def __init__(self, folder: Path, properties: dict[str, Any]) -> None:
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(folder / "model.xml"), "CPU", properties)

    def __call__(self, frames: Any) -> list[Any]:
        """The four outputs, in the order of `OUTPUTS`, for frames (N, H, W, 3) uint8 BGR."""
        found = self.model(frames)
        return [found[name] for name in OUTPUTS]
