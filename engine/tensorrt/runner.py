"""Engines on a GPU: the runner for files that `retinart build` wrote.

    N  images      H, W  the network's size      M  detections of an image

The story in four files: a `Plan` is the loaded engine, a `Lane` is a stream with memory and
contexts that runs one batch at a time, a `LanePool` knows which lanes are idle, and the runner here
cuts images into batches that the engine's profile takes.

A few lanes stand ready, so that several threads can run at once, and so that one thread can start a
batch before it waits for the last one: while the GPU works on that, the next is copied. Streams of
frames do so, and so do more images than the profile's largest batch.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from retinart.engine.common.timing import StageClock
from retinart.engine.cuda.api import Cuda, CudaError
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.cuda.open_gpu import open_gpu
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.runtime.options import EngineOptions
from retinart.engine.runtime.runner import Finish, Prepared, check_stricter, from_outputs
from retinart.engine.tensorrt.api import TensorRT, known_capabilities, load_tensorrt
from retinart.engine.tensorrt.engine_file import (
    EngineInfo,
    check_gpu,
    check_plan,
    check_version,
)
from retinart.engine.tensorrt.gpu_resize import batch_shape, plan_resize
from retinart.engine.tensorrt.lane import Lane
from retinart.engine.tensorrt.lane_pool import InFlight, LanePool
from retinart.engine.tensorrt.plan import Plan


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
        MissingDependency: no GPU, no TensorRT, or no Python package for CUDA.
    """
    check_stricter(thresholds, info.model.thresholds)
    data, trt, cuda = load_parts(path, info, options.gpu)
    return TensorRTRunner(data, info, thresholds, options, trt=trt, cuda=cuda)


def load_parts(path: Path, info: EngineInfo, gpu: int) -> tuple[bytes, TensorRT, Cuda]:
    """An engine's bytes, its runtime's module and the GPU, after checking that they fit.

    Raises:
        BadInput, MissingDependency: see `load_engine`.
    """
    data = check_plan(path, info)
    trt = load_tensorrt(info.runtime)
    check_version(path, info, trt.__version__)
    check_gpu(path, info, find_gpus(), gpu, known_capabilities(trt))
    return data, trt, open_gpu(gpu)


class TensorRTRunner:
    """A plan on a GPU. See `load_engine`, which checks first that it can run.

    Args:
        data: the engine's bytes.
        info: its metadata.
        thresholds, options: see `load_engine`.
        trt: the runtime's module.
        cuda: the GPU; closed with the runner, and if this fails.
    """

    def __init__(
        self,
        data: bytes,
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
        self._profile, self._rebuild = info.profile, info.rebuild
        self.thresholds, self._cuda, self._gpu_resize = thresholds, cuda, options.gpu_resize
        folder = options.cache_dir
        kernels = folder and folder / f"{info.plan_sha256[:16]}.tensorrt-rtx"
        parts = ExitStack()  # freed in reverse: the pool, the lanes, the plan, and last the context
        parts.callback(cuda.close)
        # Runs once: at `close`, or when this is collected, or when the process ends.
        self._release = weakref.finalize(self, parts.close)
        try:
            with cuda.current():
                plan = Plan(trt, data, info, kernels=kernels)
                parts.callback(_close, cuda, plan)
                self._lanes: list[Lane] = []
                for _ in range(options.contexts):
                    rule = self.info.resize if options.gpu_resize else None
                    self._lanes.append(Lane(cuda, plan, graphs=options.graphs, resize=rule))
                    parts.callback(_close, cuda, self._lanes[-1])
                self._pool = LanePool(cuda, self._lanes)
                parts.callback(self._pool.close)
        except BaseException:
            with contextlib.suppress(CudaError):  # the first error is the one to tell
                self._release()
            raise

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        rule = self.info.resize
        if not self._gpu_resize:
            frames, resized = rule.apply(images)
            return Prepared(partial(self.start, frames), resized)
        planned, works = plan_resize(rule, images), list[Callable[[Lane], None]]()
        for part in self._parts(len(images)):
            shape = batch_shape(rule, planned[part])
            self._check(shape)
            work = partial(
                Lane.start_resizing, images=images[part], resized=planned[part], shape=shape
            )
            works.append(work)
        return Prepared(partial(self._start, works, ()), planned)

    def start(self, frames: Image, clock: StageClock) -> Finish:
        """Start a batch (N, H, W, 3) uint8 BGR at the network's size."""
        works, copies = list[Callable[[Lane], None]](), list[float]()
        for part in self._parts(len(frames)):
            self._check(frames[part].shape)
            works.append(partial(_load_and_start, frames=frames[part], seconds=copies))
        return self._start(works, copies, clock)

    def device_ms(self, frames: Image) -> float:
        """Milliseconds by the GPU's own clock from one batch's upload to its download's end."""
        lane = self._pool.take()
        try:
            with self._cuda.current():
                lane.load(frames)
                begin = lane.stream.record()
                lane.start()
                end = lane.stream.record()
                lane.finish()
                ms = end.ms_since(begin)
                del begin, end  # they are freed with their objects, which takes the context
                return ms
        finally:
            self._pool.give(lane)

    def device_rate(self, frames: Image, rounds: int) -> float:
        """Images a second of the GPU alone: one batch lies ready on each lane, and is run again.

        Nothing waits for the host between the rounds. Each run copies the batch and the outputs.
        """
        lanes = [self._pool.take() for _ in self._lanes]
        try:
            with self._cuda.current():
                for lane in lanes:
                    lane.load(frames)
                begin = time.perf_counter()
                for _ in range(rounds):
                    for lane in lanes:
                        lane.start()
                for lane in lanes:
                    lane.finish()
                return rounds * len(lanes) * len(frames) / (time.perf_counter() - begin)
        finally:
            for lane in lanes:
                self._pool.give(lane)

    @property
    def no_graph(self) -> str:
        """Why plain launches are used although graphs are wanted; "" while graphs work."""
        return next((lane.no_graph for lane in self._lanes if lane.no_graph), "")

    def tensors(self, names: Sequence[str], frames: Image) -> None:
        """See `Runner`. A plan keeps no tensor but its outputs."""

    def close(self) -> None:
        """See `Runner`. It waits for batches that are under way."""
        self._release()

    def _start(
        self, works: Sequence[Callable[[Lane], None]], copies: Sequence[float], clock: StageClock
    ) -> Finish:
        begin = time.perf_counter()
        batches = [self._pool.start(work) for work in works]
        return partial(self._finish, batches, copies, clock, begin)

    def _finish(
        self, batches: Sequence[InFlight], copies: Sequence[float], clock: StageClock, begin: float
    ) -> list[Detections]:
        found = [d for batch in batches for d in from_outputs(*batch.outputs(), self.thresholds)]
        if copies:
            clock.add("copy", sum(copies))
        clock.add("infer", time.perf_counter() - begin - sum(copies))
        return found

    def _parts(self, n: int) -> list[slice]:
        """Slices of N images: batches as large as the profile takes."""
        largest = self._profile[2][0]
        return [slice(i, i + largest) for i in range(0, n, largest)]

    def _check(self, shape: tuple[int, ...]) -> None:
        low, _, high = self._profile
        if not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
            raise BadInput(
                f"a batch of {_text(shape)} is outside of the engine's profile",
                why=f"it takes {_text(low)} to {_text(high)} (images, height, width, channels)",
                fix=f"Build it with another profile: {self._rebuild}",
            )


def _load_and_start(lane: Lane, frames: Image, seconds: list[float]) -> None:
    """Start a batch on a lane, and note how long the copy into page-locked memory took."""
    begin = time.perf_counter()
    lane.load(frames)
    seconds.append(time.perf_counter() - begin)
    lane.start()


def _close(cuda: Cuda, part: Plan | Lane) -> None:
    with cuda.current():
        part.close()


def _text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
