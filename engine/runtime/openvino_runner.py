"""The runner for exported files on OpenVINO: the network there, NMS in NumPy. See `runners.py`."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, INPUT, REEXPORT, Compute, ModelInfo, Thresholds
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.engine.runtime.openvino_api import find_tensor, load_openvino
from retinart.engine.runtime.runner import Finish, last_line
from retinart.engine.runtime.saturation import avoid_saturation
from retinart.engine.runtime.winograd import use_winograd

_BATCH_SIZES = 4  # compiled models that are kept, one a batch size
_HINTS: dict[Compute, str] = {"fp32": "f32", "fp32-direct": "f32", "bf16": "bf16"}


# By device, what keeps OpenVINO's library loaded: unloaded, its threads may still be at work.
_kept: dict[str, Any] = {}


def has_bf16(device: str = "CPU") -> bool:
    """Whether an OpenVINO device has instructions for bfloat16."""
    try:
        core = _kept.setdefault(device, load_openvino().Core())
        return "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError:  # no such device, which is said when a model is compiled for it
        return False


def _keep_additions_in_convolutions(core: Any) -> None:
    """Without code generation for elementwise operators, what it would take goes on in INT8.

    "Snippets" takes a residual addition out of the INT8 convolution in front of it, which then
    writes four bytes a value: 1 to 5% of a frame. The property is not a public one, so an OpenVINO
    that has no such thing goes without.
    """
    with contextlib.suppress(RuntimeError):
        core.set_property("CPU", {"SNIPPETS_MODE": "DISABLE"})


class OpenVINORunner:
    """A model on OpenVINO, compiled once for each batch size (once in all when sizes vary).

    Args:
        path: the ONNX file.
        info: its metadata.
        device: an OpenVINO device, such as "CPU".
        compute: what the network's float layers are computed in; see `Detector`.
        threads: inference threads; None leaves the choice to OpenVINO.
        throughput: the highest rate of several batches at once, each of which takes longer, and
            not the shortest time of one. On a CPU a few threads work on each batch, which wait
            less for each other than all of them on one.
        cache_dir: where compiled models are kept between starts, or None.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        *,
        device: str = "CPU",
        compute: Compute = "fp32",
        threads: int | None = None,
        throughput: bool = False,
        cache_dir: Path | None = None,
    ) -> None:
        openvino = load_openvino()
        self._info, self._device = info, device
        self._core = openvino.Core()
        _kept.setdefault(device, self._core)
        if compute == "bf16" and not has_bf16(device):
            raise BadInput(
                f"the device {device} has no bf16 instructions",
                why="Intel's CPUs have them since Cooper Lake, AMD's since Zen 4",
                fix="Leave compute at fp32",
            )
        # said in either case: left alone, CPUs with bf16 would silently use that
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[compute],
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        if cache_dir is not None:
            self._config["CACHE_DIR"] = str(cache_dir)
        if device == "CPU" and info.precision.startswith("int8"):
            _keep_additions_in_convolutions(self._core)
        try:
            whole = self._core.read_model(path)
            cut = [find_tensor(whole, name) for name in CANDIDATES]
            self._model = openvino.Model(cut, whole.get_parameters(), info.name)
            if compute == "fp32" and device == "CPU" and info.precision == "fp32":
                use_winograd(self._model)
            if info.precision.startswith("int8"):
                avoid_saturation(self._model, device)
        except RuntimeError as error:
            raise BadInput(
                f"OpenVINO cannot load {path}", why=last_line(error), fix=REEXPORT
            ) from error
        self._lock = threading.Lock()
        self._pools: dict[int, _Pool] = {}
        self._closed = False
        try:
            best = self._pool(1).compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        except RuntimeError as error:
            raise BadInput(
                f"OpenVINO cannot prepare {path} for the device {device}",
                why=last_line(error),
                fix=f"Devices here: {', '.join(self._core.available_devices)}",
            ) from error
        # each that is computed has one waiting, or cores would idle until NMS makes room for it
        self.at_once = 2 * int(best) if throughput else 1

    def start(
        self,
        frames: Image,
        sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds,
        clock: StageClock,
    ) -> Finish:
        """See `Runner`."""
        pool = self._pool(len(frames))
        request, begin = pool.take(), time.perf_counter()
        request.start_async({0: frames}, share_inputs=True)

        def finish() -> list[Detections]:
            request.wait()
            left.detach()
            clock.add("infer", time.perf_counter() - begin)
            with clock("nms"):
                found = self._nms(request, frames, sizes, thresholds)
            pool.give(request)  # after an error it is not used again
            return found

        left = weakref.finalize(finish, _wait, request, frames)
        return finish

    def close(self) -> None:
        """See `Runner`. Calls that are running finish; what they hold goes with them."""
        with self._lock:
            self._closed = True
            self._pools.clear()

    def _nms(
        self,
        request: Any,
        frames: Image,
        sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds,
    ) -> list[Detections]:
        variant, frame = self._info.variant, frames.shape[1:3]
        boxes, scores = (request.get_output_tensor(i).data for i in (0, 1))
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


def _wait(request: Any, frames: Image) -> None:
    """The end of a batch that nobody finishes: until then its frames must stay where they are."""
    request.wait()


class _Pool:
    """A compiled model and its idle inference requests; each serves one batch at a time."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def take(self) -> Any:
        """An idle request, or a new one when all are in use."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self.compiled.create_infer_request()

    def give(self, request: Any) -> None:
        """It is idle again."""
        self._idle.put(request)
