"""OpenVINO without a detector: the values of any tensors of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.media.images import Image
from retinart.engine.runtime.native_errors import explained
from retinart.engine.runtime.openvino_api import find_tensors, load_openvino, openvino_core
from retinart.engine.runtime.saturation import avoid_saturation


def tensor_probe(path: Path, names: Sequence[str]) -> Callable[[Image], dict[str, Any]]:
    """A function from frames (N, H, W, 3) uint8 BGR to any tensors of a graph, by name.

    The arrays belong to the runtime and change with the next call: copy those that you keep.
    """
    openvino = load_openvino()
    core = openvino_core()
    with explained("OpenVINO", path, "load"):
        whole = core.read_model(path)
        model = openvino.Model(find_tensors(whole, names), whole.get_parameters(), "probe")
        avoid_saturation(model, "CPU")
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()

    def run(frames: Image) -> dict[str, Any]:
        with explained("OpenVINO", path, "run"):
            request.infer({0: frames})
        return {name: request.get_output_tensor(i).data for i, name in enumerate(names)}

    return run


def peak_probe(path: Path, names: Sequence[str]) -> Callable[[Image], dict[str, float]]:
    """A function from frames (N, H, W, 3) uint8 BGR to the largest magnitudes of tensors.

    The graph itself finds them, so no tensor is copied out of it.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    core = openvino_core()
    with explained("OpenVINO", path, "load"):
        whole = core.read_model(path)
        peaks = []
        for port in find_tensors(whole, names):
            flat = ops.reshape(ops.abs(port), np.array([-1]), False)
            peaks.append(ops.reduce_max(flat, np.array([0]), False))
        model = openvino.Model(peaks, whole.get_parameters(), "peaks")
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(frames: Image) -> dict[str, float]:
        with explained("OpenVINO", path, "run"):
            result = compiled({0: frames})
        return {name: float(result[i]) for i, name in enumerate(names)}

    return run
