"""Runners: one model file on one runtime, frames in, detections in frame pixels out.

    N  frames      H, W  the network's size      M  detections of a frame

OpenVINO runs the network up to the candidates and NumPy does NMS, which is faster on a CPU than any
in-graph form; ONNX Runtime runs the file exactly as it is written. Both give the same detections,
with one exception: most projects clip boxes to the image before NMS, and NMS in the file knows only
the frame. So it may decide otherwise than they and OpenVINO for boxes that reach into padding.
"""

from __future__ import annotations

import importlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.images import Image
from retinart.engine.info import CANDIDATES, INPUT, OUTPUTS, REEXPORT, ModelInfo, Thresholds
from retinart.engine.nms import detect_from_candidates
from retinart.engine.timing import StageClock

_BATCH_SIZES = 4  # compiled models that are kept, one a batch size


class Runner(Protocol):
    """What a detector needs of a runtime. `run` may be called from several threads at once."""

    name: str

    def run(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds,
        clock: StageClock,
    ) -> list[Detections]:
        """Detections in pixels of the frames, one object a frame.

        Args:
            frames: (N, H, W, 3) uint8 BGR.
            sizes: (height, width) of the part of each frame that is no padding, at its top left.
            thresholds: what counts as a detection.
            clock: gets the times of the stages infer and nms.
        """

    def close(self) -> None:
        """Give back what the runtime holds."""


class OpenVINORunner:
    """A model on OpenVINO, compiled once for each batch size (once in all when sizes vary).

    Args:
        path: the ONNX file.
        info: its metadata.
        device: an OpenVINO device, such as "CPU".
        threads: inference threads; None leaves the choice to OpenVINO.
        cache_dir: where compiled models are kept between starts, or None.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        *,
        device: str = "CPU",
        threads: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        openvino = load_openvino()
        self._info, self._device = info, device
        self._core = openvino.Core()
        # the file says its precision: without this, CPUs with bf16 would silently use that
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        if cache_dir is not None:
            self._config["CACHE_DIR"] = str(cache_dir)
        try:
            whole = self._core.read_model(path)
            cut = [find_tensor(whole, name) for name in CANDIDATES]
            self._model = openvino.Model(cut, whole.get_parameters(), info.name)
        except RuntimeError as error:
            raise BadInput(
                f"OpenVINO cannot load {path}", why=_last_line(error), fix=REEXPORT
            ) from error
        self._lock = threading.Lock()
        self._pools: dict[int, _Pool] = {}
        self._closed = False
        try:
            self._pool(1)
        except RuntimeError as error:
            raise BadInput(
                f"OpenVINO cannot prepare {path} for the device {device}",
                why=_last_line(error),
                fix=f"Devices here: {', '.join(self._core.available_devices)}",
            ) from error

    def run(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds,
        clock: StageClock,
    ) -> list[Detections]:
        """See `Runner`."""
        variant, frame = self._info.variant, frames.shape[1:3]
        with self._pool(len(frames)).request() as request:
            with clock("infer"):
                request.infer({0: frames}, share_inputs=True)
                boxes, scores = (request.get_output_tensor(i).data for i in (0, 1))
            with clock("nms"):
                return [
                    detect_from_candidates(
                        b,
                        s,
                        thresholds,
                        plus_one=variant.box_plus_one,
                        clip_to=variant.clip_size(frame, size) if variant.clip_before_nms else None,
                    )
                    for b, s, size in zip(boxes, scores, sizes, strict=True)
                ]

    def close(self) -> None:
        """See `Runner`. Calls that are running finish; what they hold goes with them."""
        with self._lock:
            self._closed = True
            self._pools.clear()

    def _pool(self, batch: int) -> _Pool:
        """The compiled model for a batch size; of fixed-size models the last few are kept."""
        canvas = self._info.resize.canvas
        key = 0 if canvas is None else batch
        with self._lock:
            if self._closed:
                raise BadInput("the detector is closed", fix="Make a new one")
            pool = self._pools.pop(key, None)
            if pool is None:
                model = self._model
                if canvas is not None:
                    model = self._model.clone()
                    model.reshape({INPUT: [batch, *canvas, 3]})
                pool = _Pool(self._core.compile_model(model, self._device, self._config))
            self._pools[key] = pool  # the most recent last
            if len(self._pools) > _BATCH_SIZES:
                del self._pools[next(iter(self._pools))]
            return pool


class _Pool:
    """A compiled model and its idle inference requests; each serves one thread at a time."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @contextmanager
    def request(self) -> Iterator[Any]:
        """An idle request, or a new one when all are in use."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._idle.put(request)


class ONNXRuntimeRunner:
    """A model on ONNX Runtime's CPU provider, with the NMS that is written in the file.

    That NMS clips boxes to the frame, padding included: see the top of this module.

    Args:
        path: the ONNX file.
        info: its metadata.
        threads: inference threads; None leaves the choice to ONNX Runtime.
    """

    name = "onnxruntime"

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
                f"ONNX Runtime cannot load {path}", why=_last_line(error), fix=REEXPORT
            ) from error
        self._built = info.thresholds

    def run(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],  # NMS in the file has no use for them
        thresholds: Thresholds,
        clock: StageClock,
    ) -> list[Detections]:
        """See `Runner`. Thresholds can only be made stricter than those in the file."""
        check_stricter(thresholds, self._built)
        with clock("infer"):
            count, boxes, scores, labels = self._session.run(list(OUTPUTS), {INPUT: frames})
        return from_outputs(count, boxes, scores, labels, thresholds)

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
    openvino = load_openvino()
    core = openvino.Core()
    whole = core.read_model(path)
    model = openvino.Model([find_tensor(whole, n) for n in names], whole.get_parameters(), "probe")
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


def _last_line(error: Exception) -> str:
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
