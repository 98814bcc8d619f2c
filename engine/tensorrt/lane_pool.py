"""Which lane does what: the idle ones, and the batches that are under way on the others."""

from __future__ import annotations

import threading
from collections.abc import Callable

from retinart.engine.cuda.api import Cuda
from retinart.engine.errors import BadInput
from retinart.engine.tensorrt.lane import Lane, Outputs


class LanePool:
    """Lanes, each idle, in a thread's hands, or with a batch under way.

    Whoever needs a lane when none is idle ends the batch that has been under way longest, and its
    outputs are kept for whoever asks. So no lane is lost with a batch that nobody waits for, and
    nobody waits for a lane that only he could free.

    Args:
        cuda: the GPU.
        lanes: filled before `open`.
    """

    def __init__(self, cuda: Cuda, lanes: list[Lane]) -> None:
        self._cuda, self._lanes = cuda, lanes
        self._idle: list[Lane] = []
        self._under_way: dict[Lane, Pending] = {}  # the longest under way first
        self._closed = True
        self._change = threading.Condition()

    def open(self) -> None:
        """All lanes are there now."""
        with self._change:
            self._idle, self._closed = list(self._lanes), False

    def start(self, work: Callable[[Lane], None]) -> Pending:
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
            pending = self._under_way[lane] = Pending(lambda: self._finish(lane))
            self._change.notify_all()
            return pending

    def take(self) -> Lane:
        """A lane that is idle now, for `give` to take back."""
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
        """A lane is idle again."""
        with self._change:
            self._under_way.pop(lane, None)
            self._idle.append(lane)
            self._change.notify_all()

    def close(self) -> list[Lane]:
        """No more lanes from here on; waits until all are back, and returns them."""
        with self._change:
            opened, self._closed = not self._closed, True
            self._change.notify_all()
        while opened:
            with self._change:
                self._change.wait_for(lambda: self._under_way or self._all_idle())
                if self._all_idle():
                    break
                longest = next(iter(self._under_way.values()))
            longest.end()
        return list(self._lanes)

    def _all_idle(self) -> bool:
        return len(self._idle) == len(self._lanes)

    def _finish(self, lane: Lane) -> Outputs:
        try:
            with self._cuda.current():
                return lane.finish()
        finally:
            self.give(lane)


class Pending:
    """A batch under way. Any thread may end it."""

    def __init__(self, finish: Callable[[], Outputs]) -> None:
        self._finish: Callable[[], Outputs] | None = finish
        self._outputs: Outputs | None = None
        self._error: Exception | None = None
        self._lock = threading.Lock()

    def end(self) -> None:
        """Wait for it and keep what it gives, if nobody did."""
        with self._lock:
            if self._finish is not None:
                finish, self._finish = self._finish, None
                try:
                    self._outputs = finish()
                except Exception as error:  # for whoever wants the outputs
                    self._error = error

    def outputs(self) -> Outputs:
        """Wait for it.

        Raises:
            Exception: what went wrong on the GPU.
        """
        self.end()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None
        return self._outputs
