"""Frames of sources through a detector, in stages: decode, resize, infer, and what a job adds.

Inference has two threads: one starts a step's batches, the other waits for them. So as many steps
as the detector is best at are under way at once, and come out in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from retinart.engine.common.timing import StageClock, StageName
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.latency_histogram import StageTimes
from retinart.engine.media.frame import Frame, Position, Selection
from retinart.engine.media.images import Image
from retinart.engine.media.live import FOREVER, LiveSettings
from retinart.engine.media.sources import Sources
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.resized import Resized
from retinart.engine.pipeline import Channel, Pipeline, Stage
from retinart.engine.runtime.runner import Finish

LARGEST_BATCH = 8
_BUFFER = 2
Batch = Image | list[Image]  # see `Detector.resize`


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """How frames get from their sources to the detector.

    Attributes:
        every, max_fps, start, end: which frames; see `Selection`.
        buffer: steps that may wait before each stage. None is 2; with a live source it is 0 before
            the detector, where the newest frame is fetched when the detector is free, and 1 behind.
        timeout, max_retries, backoff: how patient live sources are; see `LiveSettings`.

    Raises:
        BadInput: a number that makes no sense.
    """

    every: int = 1
    max_fps: float | None = None
    start: Position | None = None
    end: Position | None = None
    buffer: int | None = None
    timeout: float = 10.0
    max_retries: int = 5
    backoff: float = 0.5

    def __post_init__(self) -> None:
        _ = self.selection
        if self.buffer is not None and not 0 <= self.buffer <= 1000:
            raise BadInput(
                f"buffer is {self.buffer}", fix="Give a number from 0 to 1000 (--buffer)"
            )
        if not 0 < self.timeout <= 3600:
            raise BadInput(f"timeout is {self.timeout}", fix="Give seconds up to 3600 (--timeout)")
        if self.max_retries < FOREVER or self.backoff < 0:
            raise BadInput(
                f"max_retries is {self.max_retries} and backoff {self.backoff}",
                fix="Give numbers from 0, or -1 to retry for ever (--max-retries)",
            )

    @property
    def selection(self) -> Selection:
        """Which frames."""
        return Selection(every=self.every, max_fps=self.max_fps, start=self.start, end=self.end)

    @property
    def live(self) -> LiveSettings:
        """How patient live sources are."""
        return LiveSettings(
            timeout=self.timeout, max_retries=self.max_retries, backoff=self.backoff
        )


class Detecting(Protocol):
    """What a stream needs of `Detector`."""

    info: ModelInfo

    @property
    def at_once(self) -> int:
        """See `Detector.at_once`."""

    def resize(self, images: Sequence[Image]) -> tuple[Batch, list[Resized]]:
        """See `Detector.resize`."""

    def start(self, batch: Batch, resized: list[Resized], clock: StageClock) -> Finish:
        """See `Detector.start`."""


@dataclass(kw_only=True)
class Step:
    """A frame of each source that had one, on their way together; one thread has it at a time.

    Attributes:
        frames: of different sources.
        resized: batches that hold the frames in order; see `Detector.resize`.
        begun: when the first of them was started; `time.perf_counter` seconds.
        under_way: what waits for each of them.
        clock: of the detector's parts.
        found: detections, one object a frame.
        done: when they were; `time.perf_counter` seconds.
        pictures: annotated frames, for a job's stages.
    """

    frames: list[Frame]
    resized: list[tuple[Batch, list[Resized]]] = field(default_factory=list)
    begun: float = 0.0
    under_way: list[Finish] = field(default_factory=list)
    clock: StageClock = field(default_factory=StageClock)
    found: list[Detections] = field(default_factory=list)
    done: float = 0.0
    pictures: list[Image] = field(default_factory=list)


class Stream:
    """Runs steps through decode, resize, infer and further stages; iterate over it for the results.

    Args:
        detector: what detects.
        names: of the sources; see `open_source`.
        settings: how.
        stages: names and functions of what comes after infer; each changes a step.
        say: told what happens to live sources.

    Attributes:
        sources: what the frames come from.
        times: how long each stage took: decode, or receive of live sources; resize, infer and what
            it consists of, and the further ones.
        detected: by source, frames that went through the detector.

    Raises:
        BadInput: a file cannot be opened.
    """

    def __init__(
        self,
        detector: Detecting,
        names: Sequence[str],
        settings: StreamSettings,
        *,
        stages: Sequence[tuple[StageName, Callable[[Step], None]]] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._detector, self.times = detector, StageTimes()
        self.sources = Sources(
            names,
            selection=settings.selection,
            settings=settings.live,
            say=say,
            time_stage=self.times.add,
        )
        self.detected = [0] * len(names)
        before = settings.buffer
        if before is None:
            before = 0 if self.sources.live else _BUFFER
        behind = max(1, before)
        # a live frame is better chosen when the last one is done than started beside it
        at_once = detector.at_once if before else 1
        self._pipeline = Pipeline(
            "decode",
            (Step(frames=frames) for frames in self.sources),
            [
                Stage(name="resize", work=self._timed("resize", self._resize), capacity=before),
                Stage(name="infer", work=self._start, capacity=before),
                Stage(name="finish", work=self._finish, capacity=at_once - 1),
                *(Stage(name=n, work=self._timed(n, work), capacity=behind) for n, work in stages),
            ],
            capacity=behind,
        )

    @property
    def queues(self) -> dict[str, Channel[Step]]:
        """The queues by the name of the stage that reads them; "" is the last."""
        return self._pipeline.queues

    def next(self, timeout: float | None = None) -> Step:
        """The next step that has been through all stages; see `Pipeline.next`."""
        step: Step = self._pipeline.next(timeout)
        return step

    def __iter__(self) -> Iterator[Step]:
        return iter(self._pipeline)

    def stop(self) -> None:
        """Take no more frames: what has not reached the detector is dropped, the rest comes out."""
        self.sources.stop()
        self._pipeline.stop(before="infer")

    def __enter__(self) -> Stream:
        try:
            if self.sources.live:
                self._warm_up()
            self._pipeline.__enter__()
        except BaseException:
            self.sources.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.sources.stop()
        self._pipeline.__exit__(*error)
        self.sources.close()

    def _warm_up(self) -> None:
        """Compile for each batch size and touch the memory, before frames have an age."""
        canvas = self._detector.info.resize.canvas
        if canvas is None:
            return
        for size in _sizes(2 * min(len(self.detected), LARGEST_BATCH) - 1):
            blank = [np.zeros((*canvas, 3), np.uint8)] * size
            if size <= len(self.detected):
                self._detector.start(*self._detector.resize(blank), StageClock())()

    def _timed(self, stage: StageName, work: Callable[[Step], None]) -> Callable[[Step], Step]:
        def run(step: Step) -> Step:
            start = time.perf_counter()
            work(step)
            self.times.add(stage, time.perf_counter() - start)
            return step

        return run

    def _resize(self, step: Step) -> None:
        begin = 0
        for size in _sizes(len(step.frames)):
            images = [frame.image for frame in step.frames[begin : begin + size]]
            step.resized.append(self._detector.resize(images))
            begin += size

    def _start(self, step: Step) -> Step:
        step.begun = time.perf_counter()
        for batch, resized in step.resized:
            step.under_way.append(self._detector.start(batch, resized, step.clock))
        step.resized = []
        return step

    def _finish(self, step: Step) -> Step:
        for finish in step.under_way:
            step.found += finish()
        step.under_way, step.done = [], time.perf_counter()
        self.times.add("infer", step.done - step.begun)
        self.times.add_parts_of_infer(step.clock)
        for frame in step.frames:
            self.detected[frame.place] += 1
        return step


def _sizes(frames: int) -> list[int]:
    """A number of frames as batches of 8, 4, 2 and 1: a runner keeps a compiled model for each."""
    sizes = [LARGEST_BATCH] * (frames // LARGEST_BATCH)
    left = frames % LARGEST_BATCH
    return sizes + [size for size in (4, 2, 1) if left & size]
