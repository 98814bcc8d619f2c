"""Runners: one model file on one runtime, frames in, detections in frame pixels out.

    N  frames      H, W  the network's size      M  detections of a frame

OpenVINO runs the network up to the candidates and NumPy does NMS, which is faster on a CPU than any
in-graph form; ONNX Runtime runs the file exactly as it is written. Both give the same detections,
with one exception: most projects clip boxes to the image before NMS, and NMS in the file knows only
the frame. So it may decide otherwise than they and OpenVINO for boxes that reach into padding.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.images import Image
from retinart.engine.info import INPUT, OUTPUTS, REEXPORT, ModelInfo, Thresholds
from retinart.engine.timing import StageClock

Finish = Callable[[], list[Detections]]


class Runner(Protocol):
    """What a detector needs of a runtime. Several threads may call it at once.

    Attributes:
        name: of the runtime.
        at_once: batches under way at once that give the highest rate.
    """

    name: str
    at_once: int

    def start(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds,
        clock: StageClock,
    ) -> Finish:
        """Begin with a batch.

        Args:
            frames: (N, H, W, 3) uint8 BGR; not to be changed before it is finished.
            sizes: (height, width) of the part of each frame that is no padding, at its top left.
            thresholds: what counts as a detection.
            clock: gets the times of the stages infer and nms.

        Returns:
            What waits for the batch, on any thread and once, and gives detections in pixels of the
            frames, one object a frame. One that is never called does no harm.
        """

    def close(self) -> None:
        """Give back what the runtime holds."""


class ONNXRuntimeRunner:
    """A model on ONNX Runtime's CPU provider, with the NMS that is written in the file.

    That NMS clips boxes to the frame, padding included: see the top of this module.

    Args:
        path: the ONNX file.
        info: its metadata.
        threads: inference threads; None leaves the choice to ONNX Runtime.
    """

    name = "onnxruntime"
    at_once = 1

    def __init__(self, path: Path, info: ModelInfo, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency.package(
                "onnxruntime", "onnxruntime", "Running on ONNX Runtime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base
            raise BadInput(
                f"ONNX Runtime cannot load {path}", why=last_line(error), fix=REEXPORT
            ) from error
        self._built = info.thresholds

    def start(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],  # NMS in the file has no use for them
        thresholds: Thresholds,
        clock: StageClock,
    ) -> Finish:
        """See `Runner`. Thresholds can only be made stricter than those in the file."""
        check_stricter(thresholds, self._built)

        def finish() -> list[Detections]:
            with clock("infer"):
                count, boxes, scores, labels = self._session.run(list(OUTPUTS), {INPUT: frames})
            return from_outputs(count, boxes, scores, labels, thresholds)

        return finish

    def close(self) -> None:
        """See `Runner`."""


def from_outputs(
    count: Any, boxes: Any, scores: Any, labels: Any, thresholds: Thresholds
) -> list[Detections]:
    """Detections of the four outputs of a file's own NMS, at thresholds that are no looser."""
    found = []
    for n, b, s, c in zip(count[:, 0], boxes, scores, labels, strict=True):
        n = min(int(n), thresholds.detections_per_img)
        n = int(np.count_nonzero(s[:n] > thresholds.score_thresh))
        found.append(Detections(xyxy=b[:n], confidence=s[:n], class_id=c[:n]))
    return found


def load_openvino() -> Any:
    """The module openvino, imported without its telemetry.

    Importing it would otherwise start a thread that reports the import to a server, and write an
    identifier to the home folder. A detector has no business to do that unasked.

    Raises:
        MissingDependency: it is not installed.
    """
    telemetry = "openvino_telemetry"
    blocked = "openvino" not in sys.modules and telemetry not in sys.modules
    if blocked:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # how an import is made to fail
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingDependency.package("openvino", "", "Running on OpenVINO") from error
    finally:
        if blocked:
            del sys.modules[telemetry]


def tensor_probe(path: Path, names: Sequence[str]) -> Callable[[Image], dict[str, Any]]:
    """A function from frames (N, H, W, 3) uint8 BGR to any tensors of a graph, by name.

    The arrays are the runtime's own and hold until the next call: copy what has to last.
    """
    from retinart.engine.saturation import avoid_saturation

    openvino = load_openvino()
    core = openvino.Core()
    whole = core.read_model(path)
    model = openvino.Model([find_tensor(whole, n) for n in names], whole.get_parameters(), "probe")
    avoid_saturation(model, "CPU")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(frames: Image) -> dict[str, Any]:
        request.infer({0: frames})
        return {name: request.get_output_tensor(i).data for i, name in enumerate(names)}

    return run


def peak_probe(path: Path, names: Sequence[str]) -> Callable[[Image], dict[str, float]]:
    """A function from frames (N, H, W, 3) uint8 BGR to the largest magnitudes of tensors.

    They are found within the graph, so that no tensor is copied out of it.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    core = openvino.Core()
    whole = core.read_model(path)
    peaks = []
    for name in names:
        flat = ops.reshape(ops.abs(find_tensor(whole, name)), np.array([-1]), False)
        peaks.append(ops.reduce_max(flat, np.array([0]), False))
    model = openvino.Model(peaks, whole.get_parameters(), "peaks")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(frames: Image) -> dict[str, float]:
        result = compiled({0: frames})
        return {name: float(result[i]) for i, name in enumerate(names)}

    return run


def find_tensor(model: Any, name: str) -> Any:
    """The output port of a graph that carries a tensor's name."""
    for op in model.get_ops():
        for port in op.outputs():
            if name in port.get_names():
                return port
    raise RuntimeError(f"the graph has no tensor {name}")


def last_line(error: Exception) -> str:
    """The cause: OpenVINO's messages begin with its own source files."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def check_stricter(wanted: Thresholds, built: Thresholds) -> None:
    """Raise BadInput when the NMS built into a file cannot give what is wanted."""
    if (
        wanted.nms_thresh != built.nms_thresh
        or wanted.score_thresh < built.score_thresh
        or wanted.detections_per_img > built.detections_per_img
    ):
        raise BadInput(
            f"the file's own NMS has conf {built.score_thresh}, iou {built.nms_thresh} and "
            f"max-det {built.detections_per_img} built in, and cannot be made looser",
            fix="Use the OpenVINO runtime, which takes any, or export again with other thresholds",
        )
