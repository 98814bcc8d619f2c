"""Ask a running job to stop, from another thread or on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """A flag that asks a job to stop. Any thread may set it.

    Attributes:
        reason: who or what asked first, such as "Ctrl-C"; "" before the first request.
    """

    def __init__(self) -> None:
        self.reason = ""

    def request(self, reason: str) -> None:
        """Ask the job to stop. The first reason is kept."""
        self.reason = self.reason or reason


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[StopRequest]:
    """While the block runs, the first SIGINT or SIGTERM asks to stop, and the second interrupts.

    Python handles signals in the main thread only. In another thread this changes nothing.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.reason:
            raise KeyboardInterrupt
        stop.request("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, handle)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
