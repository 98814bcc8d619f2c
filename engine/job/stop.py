"""Asking a running job to stop, by Ctrl-C and SIGTERM alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Asks a job to stop, from any thread.

    Attributes:
        reason: what asked first, such as "Ctrl-C"; "" before that.
    """

    def __init__(self) -> None:
        self.reason = ""

    def request(self, reason: str) -> None:
        """Ask for it."""
        self.reason = self.reason or reason


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM ask to stop; the second of them interrupts at once.

    Outside of the main thread, which alone gets signals, nothing is changed.
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
