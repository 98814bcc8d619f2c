"""Engines on a GPU: the runner for files that `retinart build` wrote.

    N  frames      H, W  the network's size      M  detections of a frame

A few lanes (stream, memory, contexts) stand ready, so that threads run at once, and so that one
thread can start a batch before it waits for the last one: while the GPU works on that, the next is
copied. Streams of frames do so, and so does what is more than the profile's largest batch.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from retinart.engine.common.timing import StageClock
from retinart.engine.cuda.api import Cuda, CudaError, Event
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.model.resized import Resized
from retinart.engine.runtime.options import EngineOptions
from retinart.engine.runtime.runner import Finish, Prepared, check_stricter, from_outputs
from retinart.engine.tensorrt.api import TensorRT, load_tensorrt
from retinart.engine.tensorrt.engine_file import (
    EngineInfo,
    FrameShape,
    check_gpu,
    check_plan,
    check_version,
)
from retinart.engine.tensorrt.gpu_resize import GpuResize, batch_shape, plan_resize
from retinart.engine.tensorrt.lane import Lane
from retinart.engine.tensorrt.lane_pool import LanePool, Pending
from retinart.engine.tensorrt.plan import LoadedEngine, load

# One for the process: what a context does when it is made or first run can wait for the whole GPU,
# which breaks another thread's capture, of whatever runner.
_alone = threading.Lock()


def load_engine(
    path: Path, info: EngineInfo, thresholds: Thresholds, options: EngineOptions
) -> TensorRTRunner:
    """Load an engine, after checking that it can run here.

    Args:
        path: the engine.
        info: its metadata.
        thresholds: what counts as a detection; they can only be stricter than the engine's.
        options: see `EngineOptions`.

    Raises:
        BadInput: looser thresholds, or another plan, version or GPU than the metadata says.
        MissingDependency: no GPU, no TensorRT or no pycuda.
    """
    check_stricter(thresholds, info.model.thresholds)
    plan = check_plan(path, info)
    trt = load_tensorrt(info.runtime)
    check_version(path, info, trt.__version__)
    check_gpu(path, info, find_gpus(), options.gpu)
    from retinart.engine.cuda.pycuda_driver import PyCuda  # needs the driver

    return TensorRTRunner(plan, info, thresholds, options, trt=trt, cuda=PyCuda(options.gpu))


class TensorRTRunner:
    """A plan on a GPU. See `load_engine`, which checks first that it can run.

    Args:
        plan: the engine's bytes.
        info: its metadata.
        thresholds, options: see `load_engine`.
        trt: the runtime's module.
        cuda: the GPU; closed with the runner, and if this fails.
    """

    def __init__(
        self,
        plan: bytes,
        info: EngineInfo,
        thresholds: Thresholds,
        options: EngineOptions,
        *,
        trt: TensorRT,
        cuda: Cuda,
    ) -> None:
        self.name: str = info.runtime
        self.info, self.max_in_flight = info.model, options.contexts
        self.identity: tuple[str, ...] = (info.runtime, info.version, f"cuda:{options.gpu}")
        self._engine, self.thresholds, self._cuda = info, thresholds, cuda
        folder = options.cache_dir
        kernels = folder and folder / f"{info.plan_sha256[:16]}.tensorrt-rtx"
        self._gpu_resize = options.gpu_resize
        loaded, lanes = LoadedEngine(kernels), list[Lane]()
        resizers: dict[Lane, GpuResize] = {}
        self._lanes, self._pool, self._resizers = lanes, LanePool(cuda, lanes), resizers
        # runs once: at close, or when this is collected, or when the process ends
        self._release = weakref.finalize(self, _release, cuda, self._pool, resizers, loaded)
        try:
            with cuda.current():
                load(trt, plan, info, loaded)
                for _ in range(options.contexts):
                    lane = Lane(
                        trt,
                        cuda,
                        loaded.engine,
                        config=loaded.config,
                        largest=info.profile[2],
                        limit=info.model.thresholds.detections_per_img,
                        graphs=options.graphs,
                        alone=_alone,
                        log=loaded.log,
                    )
                    lanes.append(lane)
                    if options.gpu_resize:
                        resizers[lane] = GpuResize(cuda, lane.stream, info.model.resize)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold what is to be freed
            with contextlib.suppress(CudaError):  # the first error is the one to tell
                self._release()
            raise
        self._pool.open()

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        rule = self.info.resize
        if not self._gpu_resize:
            frames, resized = rule.apply(images)
            return Prepared(partial(self.start, frames), resized)
        planned, works = plan_resize(rule, images), []
        for part in self._parts(len(images)):
            shape = batch_shape(rule, planned[part])
            self._check(shape)
            works.append(partial(self._enqueue, images[part], planned[part], shape))
        return Prepared(partial(self._start, works), planned)

    def start(self, frames: Image, clock: StageClock) -> Finish:
        """Start a batch (N, H, W, 3) uint8 BGR at the network's size."""
        parts = [frames[part] for part in self._parts(len(frames))]
        for batch in parts:
            self._check(batch.shape)
        copies: list[float] = []
        works = [partial(_copy_and_start, frames=b, seconds=copies) for b in parts]
        return self._start(works, clock, copies)

    def device_ms(self, frames: Image) -> float:
        """Milliseconds by the GPU's own clock from one batch's upload to its download's end."""
        lane = self._pool.take()
        try:
            with self._cuda.current():
                begin = list[Event]()
                lane.start(frames, lambda: begin.append(lane.stream.record()))
                end = lane.stream.record()
                lane.finish()
                ms = end.ms_since(begin.pop())
                del end  # pycuda lets go of them with their objects, in their context
                return ms
        finally:
            self._pool.give(lane)

    @property
    def no_graph(self) -> str:
        """Why plain launches are used although graphs are wanted; "" while graphs work."""
        return next((lane.no_graph for lane in self._lanes if lane.no_graph), "")

    def tensors(self, names: Sequence[str], frames: Image) -> None:
        """See `Runner`. A plan keeps no tensor but its outputs."""

    def close(self) -> None:
        """See `Runner`. Batches that are under way are waited for."""
        self._release()

    def _enqueue(
        self, images: Sequence[Image], resized: Sequence[Resized], shape: FrameShape, lane: Lane
    ) -> None:
        self._resizers[lane].enqueue(images, resized, shape, lane.frames.address)
        lane.start_on_gpu(shape)

    def _start(
        self,
        works: Sequence[Callable[[Lane], None]],
        clock: StageClock,
        copies: Sequence[float] = (),
    ) -> Finish:
        begin = time.perf_counter()
        pending = [self._pool.start(work) for work in works]
        return partial(self._finish, pending, clock, begin, copies)

    def _finish(
        self,
        pending: Sequence[Pending],
        clock: StageClock,
        begin: float,
        copies: Sequence[float],
    ) -> list[Detections]:
        found = [d for p in pending for d in from_outputs(*p.outputs(), self.thresholds)]
        if copies:
            clock.add("copy", sum(copies))
        clock.add("infer", time.perf_counter() - begin - sum(copies))
        return found

    def _parts(self, n: int) -> list[slice]:
        """Batches that the profile takes: as large as can be."""
        largest = self._engine.profile[2][0]
        return [slice(i, i + largest) for i in range(0, n, largest)]

    def _check(self, shape: tuple[int, ...]) -> None:
        low, _, high = self._engine.profile
        if not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
            raise BadInput(
                f"a batch of {_text(shape)} is outside of the engine's profile",
                why=f"it takes {_text(low)} to {_text(high)} (images, height, width, channels)",
                fix=f"Build it with another profile: {self._engine.rebuild}",
            )


def _copy_and_start(lane: Lane, frames: Image, seconds: list[float]) -> None:
    """Start a batch on a lane, and add how long it took into page-locked memory."""
    begin = time.perf_counter()
    lane.start(frames, lambda: seconds.append(time.perf_counter() - begin))


def _release(
    cuda: Cuda,
    pool: LanePool,
    resizers: dict[Lane, GpuResize],
    loaded: LoadedEngine,
) -> None:
    """Free what a runner holds: lanes, then the engine, the runtime, and last the context."""
    lanes = pool.close()
    try:
        with cuda.current():
            for lane in lanes:
                if lane in resizers:
                    with contextlib.suppress(CudaError):  # one that stays: free what can be
                        resizers.pop(lane).close()
                lane.close()
            loaded.keep_cache()
            loaded.free()
    finally:
        cuda.close()


def _text(shape: Iterable[int] | FrameShape) -> str:
    return "x".join(str(int(np.int64(s))) for s in shape)
