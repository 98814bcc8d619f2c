"""Batches under way: the lanes that are idle, what waits for a batch, and two batches at once."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from retinart.engine.cuda import Cuda
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.info import Thresholds
from retinart.engine.lane import Lane, Outputs
from retinart.engine.runners import from_outputs

T = TypeVar("T")
R = TypeVar("R")


class LanePool:
    """The lanes that are idle."""

    def __init__(self, lanes: list[Lane]) -> None:
        self._lanes = lanes
        self._idle: list[Lane] = []
        self._closed = True
        self._change = threading.Condition()

    def open(self) -> None:
        """All lanes are there now."""
        with self._change:
            self._idle, self._closed = list(self._lanes), False

    def take(self, *, wait: bool) -> Lane | None:
        """An idle lane, or None when there is none and nobody waits."""
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._idle or self._closed)
            if self._closed:
                raise BadInput("the detector is closed", fix="Make a new one")
            return self._idle.pop() if self._idle else None

    def give(self, lane: Lane) -> None:
        """Give a lane back."""
        with self._change:
            self._idle.append(lane)
            self._change.notify_all()

    def close(self) -> list[Lane]:
        """No more lanes from here on; waits until all are back, and returns them."""
        with self._change:
            opened, self._closed = not self._closed, True
            self._change.notify_all()
            if opened:
                self._change.wait_for(lambda: len(self._idle) == len(self._lanes))
            return list(self._lanes)


class Pending:
    """A batch under way on the GPU. `result` may be called on any thread, once."""

    def __init__(self, finish: Callable[[], Outputs], under_way: set[Pending]) -> None:
        self._finish: Callable[[], Outputs] | None = finish
        self._lock = threading.Lock()
        self._under_way = under_way
        under_way.add(self)

    def result(self, thresholds: Thresholds) -> list[Detections]:
        """Wait for it: detections in pixels of the frames, one object a frame."""
        outputs = self.end()
        if outputs is None:
            raise BadInput("the detector is closed", fix="Make a new one")
        return from_outputs(*outputs, thresholds)

    def end(self) -> Outputs | None:
        """Wait for it, if nobody did."""
        with self._lock:
            finish, self._finish = self._finish, None
            self._under_way.discard(self)
            return finish() if finish is not None else None


def finisher(cuda: Cuda, pool: LanePool, lane: Lane) -> Callable[[], Outputs]:
    """What waits for a lane's batch and gives the lane back to its pool."""

    def finish() -> Outputs:
        try:
            with cuda.current():
                return lane.finish()
        finally:
            pool.give(lane)

    return finish


def two_at_once(
    items: Iterable[T], start: Callable[[T, bool], Callable[[], R] | None]
) -> Iterator[tuple[T, R]]:
    """Each item with its result, in order, the next one started before one is waited for.

    Args:
        items: such as frames.
        start: begins one, given whether to wait for a place, and gives what waits for its result.
            Whoever has one under way never waits for another place: two would wait for each other.
    """
    waiting: deque[tuple[T, Callable[[], R]]] = deque()
    try:
        for item in items:
            finish = start(item, not waiting)
            if finish is None or len(waiting) > 1:
                first, end = waiting.popleft()
                yield first, end()
                finish = finish or start(item, not waiting)
            assert finish is not None
            waiting.append((item, finish))
        while waiting:
            first, end = waiting.popleft()
            yield first, end()
    finally:
        for _, end in waiting:  # nobody wants these any more, or they ended with the detector
            with contextlib.suppress(RetinartError):
                end()
