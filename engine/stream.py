"""Frames of sources through a runner, in stages: decode, resize, infer, and what a job adds.

Inference has two threads: one submits a step's batches, the other waits for their results. So as
many steps as the runtime is best at are under way at once, and they come out in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from retinart.engine.common.latency_histogram import StageTimes
from retinart.engine.common.timing import StageClock, StageName
from retinart.engine.detections import Detections
from retinart.engine.keep.counting import Tally
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image, Note
from retinart.engine.media.settings import StreamSettings
from retinart.engine.media.sources import Sources
from retinart.engine.media.still import StillScenes
from retinart.engine.pipeline import Channel, Pipeline
from retinart.engine.runtime.runner import Pending, Prepared, Runner
from retinart.engine.tiles.runner import (
    LARGEST_BATCH,
    batch_sizes,
    batches_of,
    innermost,
    is_tiling,
)

_BUFFER = 2

T = TypeVar("T")
U = TypeVar("U")


# A step is one frame of each source that had one. It goes through the threads in three forms.


@dataclass(frozen=True)
class _Resized:
    """A step at the network's size, in batches that hold its frames in order.

    Frames that may share a batch stand together; see `ResizeRule.groups`.
    """

    frames: list[Frame]
    batches: list[Prepared]
    still: list[Frame]


@dataclass(frozen=True)
class _UnderWay:
    """A step at inference; `begun` is in `time.perf_counter` seconds."""

    frames: list[Frame]
    batches: list[Pending]
    still: list[Frame]
    clock: StageClock
    begun: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step with its detections.

    Attributes:
        frames: of different sources.
        found: detections, one object a frame.
        done: when inference ended; `time.perf_counter` seconds.
        still: for each frame, whether it took over the result of the frame before.
        pictures: annotated frames, if a further stage drew them.
        tallies: what was counted up to each frame, if a further stage counted.
    """

    frames: list[Frame]
    found: list[Detections]
    done: float
    still: list[bool] = field(default_factory=list)
    pictures: Sequence[Image] = ()
    tallies: Sequence[Tally] = ()


class Stream:
    """Runs steps through decode, resize, infer and further stages; iterate over it for the results.

    Args:
        runner: what detects.
        names: of the sources; see `open_source`.
        settings: which frames, and how many may wait.
        stages: names and functions of what comes after infer; each makes a step of a step.
        say: told what happens to live sources.
        note: told what is changed of images.

    Attributes:
        sources: what the frames come from.
        times: how long each stage took.

    Raises:
        BadInput: a file cannot be opened.
    """

    def __init__(
        self,
        runner: Runner,
        names: Sequence[str],
        settings: StreamSettings,
        *,
        stages: Sequence[tuple[StageName, Callable[[Step], Step]]] = (),
        say: Callable[[str], None] = lambda text: None,
        note: Note | None = None,
    ) -> None:
        self._runner, self.times = runner, StageTimes()
        self._still, self._last = None, dict[int, Detections]()
        if settings.skip_still is not None:
            self._still = StillScenes(settings.skip_still, settings.max_skip)
        self.sources = Sources(
            names,
            selection=settings,
            settings=settings,
            say=say,
            time_stage=self.times.add,
            note=note,
        )
        before = settings.buffer
        if before is None:
            before = 0 if self.sources.live else _BUFFER
        behind = max(1, before)
        # Of a live source, it is better to choose a frame late than to start it early.
        in_flight = runner.max_in_flight if before else 1
        # Sources time decoding themselves (waiting does not count); infer spans two stages and is
        # timed in `_finish`.
        self._pipeline = (
            Pipeline("decode", self.sources, capacity=before)
            .then("resize", self._timed("resize", self._resize), capacity=before)
            .then("infer", self._submit, capacity=in_flight - 1)
            .then("finish", self._finish, capacity=behind)
        )
        for name, work in stages:
            self._pipeline.then(name, self._timed(name, work), capacity=behind)

    @property
    def queues(self) -> dict[str, Channel[Any]]:
        """The queues by the name of the stage that reads them; "" stands for `next`."""
        return self._pipeline.queues

    def next(self, timeout: float | None = None) -> Step:
        """The next step that has been through all stages; see `Pipeline.next`."""
        return self._pipeline.next(timeout)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._pipeline)

    def stop(self) -> None:
        """Take no more frames: drop what has not reached the runner, and finish the rest."""
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
        canvas, sources = self._runner.info.resize.canvas, len(self.sources.all)
        if canvas is None:
            return
        runner, most = innermost(self._runner), sources
        if is_tiling(self._runner):
            most = LARGEST_BATCH  # how many tiles a frame has is seen when it comes
        blank = np.zeros((*canvas, 3), np.uint8)
        for size in batch_sizes(2 * min(most, LARGEST_BATCH) - 1):
            if size <= most:
                runner.prepare([blank] * size).submit(StageClock()).result()

    def _timed(self, stage: StageName, work: Callable[[T], U]) -> Callable[[T], U]:
        def run(item: T) -> U:
            start = time.perf_counter()
            made = work(item)
            self.times.add(stage, time.perf_counter() - start)
            return made

        return run

    def _resize(self, step: list[Frame]) -> _Resized:
        hits = [self._still is not None and self._still(frame) for frame in step]
        frames = [frame for frame, hit in zip(step, hits, strict=True) if not hit]
        batches, ordered = [], list[Frame]()
        for group in batches_of(self._runner, [frame.image for frame in frames]):
            part = [frames[i] for i in group]
            batches.append(self._runner.prepare([frame.image for frame in part]))
            ordered += part
        still = [frame for frame, hit in zip(step, hits, strict=True) if hit]
        return _Resized(ordered, batches, still)

    def _submit(self, step: _Resized) -> _UnderWay:
        clock, begun = StageClock(), time.perf_counter()
        pending = [batch.submit(clock) for batch in step.batches]
        return _UnderWay(step.frames, pending, step.still, clock, begun)

    def _finish(self, step: _UnderWay) -> Step:
        results = (one for batch in step.batches for one in batch.result())
        self._last |= {
            frame.source_index: found for frame, found in zip(step.frames, results, strict=True)
        }
        done = time.perf_counter()
        if step.frames:
            self.times.add("infer", done - step.begun)
            self.times.add_parts_of_infer(step.clock)
        frames = sorted([*step.frames, *step.still], key=lambda frame: frame.source_index)
        for frame in frames:
            self.sources.all[frame.source_index].counts.detected += 1
        still = {frame.source_index for frame in step.still}
        for index in still:
            self.sources.all[index].counts.still += 1
        return Step(
            frames=frames,
            found=[self._last[frame.source_index] for frame in frames],
            done=done,
            still=[frame.source_index in still for frame in frames],
        )
