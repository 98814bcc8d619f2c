"""Which lane does what: the idle lanes, and the batches that are under way on the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from retinart.engine.cuda.api import Cuda
from retinart.engine.errors import BadInput
from retinart.engine.tensorrt.lane import Lane
from retinart.engine.tensorrt.plan import Outputs


class LanePool:
    """Lanes, each idle, in a thread's hands, or with a batch under way.

    A thread that finds no idle lane ends the batch that has been under way longest, and keeps that
    batch's outputs for the thread that asks for them. So an abandoned batch cannot leak a lane, and
    one thread cannot deadlock on its own batches.

    Args:
        cuda: the GPU.
        lanes: all of them, idle.
    """

    def __init__(self, cuda: Cuda, lanes: Sequence[Lane]) -> None:
        self._cuda, self._lanes = cuda, len(lanes)
        self._idle = list(lanes)
        self._under_way: dict[Lane, InFlight] = {}  # the longest under way first
        self._closed = False
        self._change = threading.Condition()

    def start(self, work: Callable[[Lane], None]) -> InFlight:
        """Have `work` enqueue a batch on a lane; the context is current for it."""
        lane = self.take()
        try:
            with self._cuda.current():
                work(lane)
        except BaseException:
            try:
                with self._cuda.current():
                    lane.stream.synchronize()
            finally:
                self.give(lane)
            raise
        with self._change:
            batch = self._under_way[lane] = InFlight(lambda: self._finish(lane))
            self._change.notify_all()
            return batch

    def take(self) -> Lane:
        """A lane that is idle now, for `give` to take back.

        Raises:
            BadInput: the pool is closed.
        """
        while True:
            with self._change:
                self._change.wait_for(lambda: self._idle or self._under_way or self._closed)
                if self._closed:
                    raise BadInput("the detector is closed", fix="Make a new one")
                if self._idle:
                    return self._idle.pop()
                longest = next(iter(self._under_way.values()))
            longest.end()

    def give(self, lane: Lane) -> None:
        """Take back a lane, which is idle again."""
        with self._change:
            self._under_way.pop(lane, None)
            self._idle.append(lane)
            self._change.notify_all()

    def close(self) -> None:
        """Refuse further batches, end those under way, and wait until every lane is idle."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._under_way or self._all_idle())
                if self._all_idle():
                    return
                longest = next(iter(self._under_way.values()))
            longest.end()

    def _all_idle(self) -> bool:
        return len(self._idle) == self._lanes

    def _finish(self, lane: Lane) -> Outputs:
        try:
            with self._cuda.current():
                return lane.finish()
        finally:
            self.give(lane)


class InFlight:
    """A batch under way on a lane. Any thread may end it."""

    def __init__(self, finish: Callable[[], Outputs]) -> None:
        self._finish: Callable[[], Outputs] | None = finish
        self._outputs: Outputs | None = None
        self._error: Exception | None = None
        self._lock = threading.Lock()

    def end(self) -> None:
        """Wait for the batch and keep its outputs or its error, unless that was done before."""
        with self._lock:
            if self._finish is not None:
                finish, self._finish = self._finish, None
                try:
                    self._outputs = finish()
                except Exception as error:  # `outputs` raises it
                    self._error = error

    def outputs(self) -> Outputs:
        """Wait for the batch.

        Raises:
            Exception: what went wrong on the GPU.
        """
        self.end()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None
        return self._outputs
