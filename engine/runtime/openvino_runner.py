"""OpenVINO: the network runs there, and NMS in NumPy. See `runner.py`."""

from __future__ import annotations

import functools
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, INPUT, REEXPORT, Compute, ModelInfo, Thresholds
from retinart.engine.runtime.compiled_cache import CompiledCache
from retinart.engine.runtime.mapped_file import MappedFile, give_back, move_constants
from retinart.engine.runtime.native_errors import explained
from retinart.engine.runtime.nms import detect_from_candidates
from retinart.engine.runtime.openvino_api import (
    find_tensors,
    has_bf16,
    load_openvino,
    openvino_core,
)
from retinart.engine.runtime.options import OpenVINOOptions
from retinart.engine.runtime.runner import Finish, Floats, Prepared, last_line
from retinart.engine.runtime.saturation import avoid_saturation
from retinart.engine.runtime.tuning import ConvolutionTimes
from retinart.engine.runtime.winograd import use_winograd

_BATCH_SIZES = 4  # compiled models that are kept, one for each batch size
_HINTS: dict[Compute, str] = {"fp32": "f32", "fp32-direct": "f32", "bf16": "bf16"}


class OpenVINORunner:
    """A model on OpenVINO, compiled once for each batch size (once in all when sizes vary).

    Args:
        path: the ONNX file.
        info: its metadata.
        thresholds: what counts as a detection.
        options: see `OpenVINOOptions`.

    Raises:
        BadInput: OpenVINO cannot load the file, or cannot compile it for the device.
    """

    name = "openvino"

    def __init__(
        self, path: Path, info: ModelInfo, thresholds: Thresholds, options: OpenVINOOptions
    ) -> None:
        openvino, device = load_openvino(), options.device
        self._path, self._compute = path, options.compute
        self.identity: tuple[str, ...] = (self.name, openvino.__version__, device, options.compute)
        self.info, self.thresholds, self._device = info, thresholds, device
        int8_on_cpu = device == "CPU" and info.precision.startswith("int8")
        self._core = openvino_core(snippets=not int8_on_cpu)
        if options.compute == "bf16" and not has_bf16(device):
            raise BadInput(
                f"the device {device} has no bf16 instructions",
                why="Intel's CPUs have them since Cooper Lake, AMD's since Zen 4",
                fix="Leave compute at fp32",
            )
        # Always set the precision: by default, CPUs with bf16 silently use it.
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[options.compute],
            "PERFORMANCE_HINT": "THROUGHPUT" if options.throughput else "LATENCY",
        }
        if options.threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = options.threads
        winograd = options.compute == "fp32" and device == "CPU" and info.precision == "fp32"
        self._times = ConvolutionTimes(options.tune, options.threads) if winograd else None
        self._cache = None
        if options.cache_dir is not None:
            how = [device, options.compute, self._config]
            self._cache = CompiledCache(options.cache_dir, path, how)
        self._lock = threading.Lock()
        self._pools: dict[int, _Pool] = {}
        self._constants: MappedFile | None = None  # of the graph
        self._closed = False
        try:
            best = self.compiled(1).get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        except RuntimeError as error:
            raise BadInput(
                f"OpenVINO cannot prepare {path} for the device {device}",
                why=last_line(error),
                fix=f"Devices here: {', '.join(self._core.available_devices)}",
            ) from error
        if self._times is not None and self._times.state:
            self.identity += (f"tuned {self._times.state}",)
        # Twice the optimum, so a request is always queued while NMS runs.
        self.max_in_flight = 2 * int(best) if options.throughput else 1

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        frames, resized = self.info.resize.apply(images)
        return Prepared(
            functools.partial(self._start, frames, [one.size for one in resized]), resized
        )

    def _start(self, frames: Image, sizes: Sequence[tuple[int, int]], clock: StageClock) -> Finish:
        """Start a batch.

        Args:
            frames: (N, H, W, 3) uint8 BGR.
            sizes: (height, width) of the part of each frame that the image covers.
            clock: gets the times of the stages infer and nms.
        """
        with explained("OpenVINO", self._path, "run"):
            pool = self._pool(len(frames))
            request, begin = pool.take(), time.perf_counter()
            request.start_async({0: frames}, share_inputs=True)

        def finish() -> list[Detections]:
            with explained("OpenVINO", self._path, "run"):
                request.wait()
            abandoned.detach()
            clock.add("infer", time.perf_counter() - begin)
            with clock("nms"):
                found = self._nms(request, frames, sizes)
            pool.give(request)  # after an error the request is not used again
            return found

        abandoned = weakref.finalize(finish, _wait, pool, request, frames)
        return finish

    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats]:
        """See `Runner`. The model is compiled once more, with these outputs."""
        with explained("OpenVINO", self._path, "check"):
            model = self._cut(names)
            model.reshape({INPUT: list(frames.shape)})
            found = self._core.compile_model(model, self._device, self._config)({0: frames})
        return {name: np.asarray(found[i], np.float32) for i, name in enumerate(names)}

    def compiled(self, batch: int) -> Any:
        """The `openvino.CompiledModel` for batches of this size, while the runner keeps it."""
        return self._pool(batch).compiled

    @functools.cached_property
    def _model(self) -> Any:
        """The graph up to the candidates. It is read only where a model must be compiled."""
        with explained("OpenVINO", self._path, "load"):
            model = self._cut(CANDIDATES, measure=True)
            if self._device == "CPU":
                self._constants = move_constants(model, load_openvino())
            return model

    def _cut(self, names: Sequence[str], *, measure: bool = False) -> Any:
        """The graph up to these tensors, with the changes that this device runs it with.

        Args:
            names: of the tensors.
            measure: time convolutions first, if that is wanted.
        """
        whole = self._core.read_model(self._path)
        ports = find_tensors(whole, names)
        model = load_openvino().Model(ports, whole.get_parameters(), self.info.name)
        if self._times is not None:
            if measure:
                self._times.measure(model)
            use_winograd(model, self._times.of)
        if self.info.precision.startswith("int8"):
            avoid_saturation(model, self._device)
        return model

    def close(self) -> None:
        """See `Runner`. Running calls finish, and free what they hold."""
        with self._lock:
            self._closed = True
            self._pools.clear()

    def _nms(
        self, request: Any, frames: Image, sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        variant, frame = self.info.variant, frames.shape[1:3]
        boxes, scores = (request.get_output_tensor(i).data for i in (0, 1))
        if boxes.shape != (len(sizes), scores.shape[1], 4) or scores.shape[2:] != (
            variant.num_classes,
        ):
            raise BadInput(
                f"{self._path} gives candidates of the shapes {boxes.shape} and {scores.shape}",
                fix=REEXPORT,
            )
        return [
            detect_from_candidates(
                b,
                s,
                self.thresholds,
                plus_one=variant.box_plus_one,
                clip_to=variant.clip_size(frame, size) if variant.clip_before_nms else None,
                cut_levels=self.info.cut_levels,
                class_ids=self.info.class_ids,
            )
            for b, s, size in zip(boxes, scores, sizes, strict=True)
        ]

    def _pool(self, batch: int) -> _Pool:
        """The compiled model for a batch size. Of a fixed-size model the last few are kept."""
        canvas = self.info.resize.canvas
        key = 0 if canvas is None else batch
        with self._lock:
            if self._closed:
                raise BadInput("the detector is closed", fix="Make a new one")
            pool = self._pools.pop(key, None)
            if pool is None:
                pool = self._load(None if canvas is None else (batch, *canvas, 3))
            self._pools[key] = pool  # the most recent last
            if len(self._pools) > _BATCH_SIZES:
                del self._pools[next(iter(self._pools))]
            return pool

    def _key(self, shape: object) -> object:
        """What a kept model depends on, beside what stays: the times that decide about layers."""
        return [shape, "" if self._times is None else self._times.state]

    def _import(self, kept: MappedFile | bytes) -> _Pool:
        if isinstance(kept, bytes):
            return _Pool(self._core.import_model(kept, self._device, self._config), None)
        with kept.dropping():
            tensor = kept.tensor(load_openvino())
            found = self._core.import_model(tensor, self._device, self._config)
        return _Pool(found, kept)

    def _load(self, shape: tuple[int, ...] | None) -> _Pool:
        """The compiled model for an input's shape, or for all: kept before, or compiled now."""
        cache = self._cache if shape is None or shape[0] == 1 else None  # batches fill the disk
        if cache is not None:
            found: _Pool | None = cache.get(self._key(shape), self._import)
            if found is not None:
                return found
        model = self._model
        if shape is not None:
            model = model.clone()
            model.reshape({INPUT: list(shape)})
        with nullcontext() if self._constants is None else self._constants.dropping():
            compiled = self._core.compile_model(model, self._device, self._config)
            if cache is not None and (self._times is None or self._times.complete):
                cache.put(self._key(shape), compiled)
        give_back()
        return _Pool(compiled, self._constants)


def _wait(pool: _Pool, request: Any, frames: Image) -> None:
    """End an abandoned batch: its weights and frames must stay in place while the request runs."""
    request.wait()


class _Pool:
    """A compiled model and its idle inference requests; each serves one batch at a time.

    Args:
        compiled: the `openvino.CompiledModel`.
        mapped: what it points into. It goes last.
    """

    def __init__(self, compiled: Any, mapped: MappedFile | None) -> None:
        self.compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._mapped = mapped

    def take(self) -> Any:
        """An idle request, or a new one when all are in use."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self.compiled.create_infer_request()

    def give(self, request: Any) -> None:
        """Take a request back."""
        self._idle.put(request)
